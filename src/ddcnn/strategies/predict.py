"""What local CNNs say of some samples: as many of them at once as are trained at once; each on its own rank."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.models import LocalCNNs
from ddcnn.strategies.problem import Problem
from ddcnn.training import predict_scores


def local_probabilities(problem: Problem, network: LocalCNNs, samples: Int64[Tensor, " m"]) -> Float[Tensor, "m N K"]:
    """Return the probabilities of every local CNN, on the CPU."""
    here = range(network.members) if problem.ranks.alone else problem.owned
    at_once = problem.group or len(here)
    parts = []
    for start in range(0, len(here), at_once):
        members = here[start : start + at_once]
        part = network
        if len(members) < network.members:
            part = network.subset(members)
        batches = problem.batches(samples, "order", part.subdomains)
        parts.append(predict_scores(part, batches, precision=problem.precision).softmax(2))
    return problem.ranks.gather(torch.cat(parts, 1), network.members)

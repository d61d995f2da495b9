"""What local CNNs say of some samples: as many of them at once as are trained at once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.fusion import LocalCNNs
from ddcnn.strategies.problem import Problem
from ddcnn.training import predict_scores


def local_probabilities(problem: Problem, network: LocalCNNs, samples: Int64[Tensor, " m"]) -> Float[Tensor, "m N K"]:
    """Return the probabilities of every local CNN, on the CPU."""
    at_once = problem.group or network.members
    parts = []
    for start in range(0, network.members, at_once):
        members = range(start, min(start + at_once, network.members))
        part = network
        if len(members) < network.members:
            part = network.subset(members)
        batches = problem.batches(samples, "order", part.subdomains)
        parts.append(predict_scores(part, batches, precision=problem.precision).softmax(2))
    return torch.cat(parts, 1)

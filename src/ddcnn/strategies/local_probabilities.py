"""`LocalProbabilities`: what local CNNs say of each part of the data, computed once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup
from ddcnn.training import predict_scores


class LocalProbabilities:
    """The local probabilities of a network, computed when they are asked for, and kept.

    Parameters
    ----------
    setup
        The data, and how it is computed.
    local_cnns
        All N of them.
    """

    def __init__(self, setup: Setup, local_cnns: LocalCNNs) -> None:
        self.setup, self.local_cnns = setup, local_cnns
        self._known: dict[str, Tensor] = {}

    def of(self, part: str) -> Float[Tensor, "m N K"]:
        """Return those of the ``"train"``, ``"validation"`` or ``"test"`` part, in its order, on the CPU."""
        if part not in self._known:
            self._known[part] = self.of_samples(getattr(self.setup.data.split, part))
        return self._known[part]

    def of_samples(self, samples: Int64[Tensor, " m"]) -> Float[Tensor, "m N K"]:
        """Return those of some samples: as many local CNNs at once as are trained at once; each on its own rank."""
        setup, network = self.setup, self.local_cnns
        if not len(samples):
            return torch.empty(0, network.members, setup.data.classes)
        found = []
        here = range(network.members) if setup.ranks.alone else setup.owned
        for group in setup.compute.groups(here):
            local_cnns = network if len(group) == network.members else network.subset(group)
            batches = setup.data.batches(samples, local_cnns.subdomains)
            found.append(predict_scores(local_cnns, batches, precision=setup.compute.precision).softmax(2))
        return setup.ranks.gather(torch.cat(found, 1), network.members)

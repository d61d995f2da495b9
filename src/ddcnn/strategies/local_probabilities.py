"""`LocalProbabilities`: what local CNNs say of each part of the data, computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.aggregation import HandedOver, LocalOutputs
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup
from ddcnn.training import predict_outputs


class LocalProbabilities:
    """The local probabilities of a network, computed when they are asked for, and kept.

    Parameters
    ----------
    setup
        The data, and how it is computed.
    local_cnns
        All N of them.
    features
        Whether they hand over features.
    """

    def __init__(self, setup: Setup, local_cnns: LocalCNNs, *, features: bool = False) -> None:
        self.setup, self.local_cnns, self.features = setup, local_cnns, features
        self._known: dict[str, LocalOutputs] = {}

    def of(self, part: str) -> Float[Tensor, "m N K"]:
        """Return those of the ``"train"``, ``"validation"`` or ``"test"`` part, in its order, on the CPU."""
        return self.outputs(part).probabilities

    def handed(self, part: str, over: HandedOver | None) -> Float[Tensor, "m N F"]:
        """Return what the local CNNs hand over; None: probabilities."""
        return self.outputs(part).handed(over)

    def outputs(self, part: str) -> LocalOutputs:
        """Return all that the local CNNs computed for a part."""
        if part not in self._known:
            self._known[part] = self.outputs_of_samples(getattr(self.setup.data.split, part))
        return self._known[part]

    def outputs_of_samples(self, samples: Int64[Tensor, " m"]) -> LocalOutputs:
        """Return the same of some samples: as many local CNNs at once as are trained at once; each on its own rank."""
        setup, network = self.setup, self.local_cnns
        widths = setup.networks.feature_widths
        if not len(samples):
            features = None if widths is None else torch.empty(0, network.members, max(widths))
            return LocalOutputs(torch.empty(0, network.members, setup.data.classes), features)
        found = []
        here = range(network.members) if setup.ranks.alone else setup.owned
        for group in setup.compute.groups(here):
            local_cnns = network if len(group) == network.members else network.subset(group)
            batches = setup.data.batches(samples, local_cnns.subdomains)
            found.append(
                predict_outputs(local_cnns, batches, features=self.features, precision=setup.compute.precision)
            )
        own = LocalOutputs.joined(found, 1)
        scores = setup.ranks.gather(own.scores, network.members)
        if own.features is None or widths is None:
            return LocalOutputs(scores)
        padded = F.pad(own.features, (0, max(widths) - own.features.shape[2]))
        return LocalOutputs(scores, setup.ranks.gather(padded, network.members, widths))

"""A gated mixture: a small network sees all that is handed over, and says whom to believe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation.absent import check_dropout, kept
from ddcnn.aggregation.average import TINY
from ddcnn.aggregation.handed import HandedOver
from ddcnn.config import Features


class Gated(nn.Module):
    """A mixture of the local CNNs, with weights that a gate finds for each image (mixture of experts).

    The gate is a layer of hidden units and a softmax over the subdomains that are present; at the start it believes
    all of them equally. The decision is the mean of the local probabilities with these weights. Where features are
    handed over, each subdomain has a linear classifier of its own here.

    Parameters
    ----------
    subdomains, classes
        N and K.
    features, widths
        What is handed over: as in `ddcnn.aggregation.Dense`.
    hidden
        Hidden units of the gate.
    subdomain_dropout
        As in `ddcnn.aggregation.Dense`.

    References
    ----------
    Jacobs, Jordan, Nowlan, Hinton, Adaptive mixtures of local experts, Neural Computation 3 (1991) 79-87.
    """

    takes_missing = True

    def __init__(
        self,
        subdomains: int,
        classes: int,
        *,
        features: Features = "probability",
        widths: Sequence[int] | None = None,
        hidden: int = 64,
        subdomain_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.built_with = {"hidden": hidden}
        self.subdomain_dropout = check_dropout(subdomain_dropout)
        self.handed = HandedOver.of(features, subdomains, classes, widths)
        self.gate = nn.Sequential(nn.Linear(self.handed.numbers, hidden), nn.ReLU(), nn.Linear(hidden, subdomains))
        nn.init.zeros_(self.gate[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.gate[-1].bias)  # type: ignore[arg-type]
        self.classifiers = None
        if not self.handed.by_class:
            self.classifiers = nn.ModuleList(nn.Linear(width, classes) for width in self.handed.widths)

    def forward(self, h: Float[Tensor, "B N F"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
        """Return the logarithm of the mixture; its softmax makes it probabilities."""
        there = kept(h, self.subdomain_dropout if self.training else 0.0, missing)
        h = torch.where(there.unsqueeze(2), h, self.handed.silent)
        seen: Tensor = self.gate(self.handed.flat(self.handed.numbers_of(h)))
        weights = seen.masked_fill(~there, -torch.inf).softmax(1)
        mixture = (weights.unsqueeze(2) * self._experts(h)).sum(1)
        return mixture.clamp_min(TINY).log()

    def _experts(self, h: Float[Tensor, "B N F"]) -> Float[Tensor, "B N K"]:
        if self.classifiers is not None:
            parts = zip(self.classifiers, self.handed.widths, strict=True)
            h = torch.stack([layer(h[:, n, :width]) for n, (layer, width) in enumerate(parts)], 1)
        return h if self.handed.are_probabilities else h.softmax(2)

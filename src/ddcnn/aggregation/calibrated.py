"""Temperatures: how sure local CNNs and their decision may be, found on validation images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.aggregation.absent import decide
from ddcnn.aggregation.handed import HandedOver

_COLDEST, _HOTTEST = 0.05, 20.0
_HALVINGS = 60
_LEAST = 1e-30  # a probability whose logarithm and its gradient are finite in float32


class Calibrated(nn.Module):
    """An aggregation with a temperature for each local CNN and one for its own scores.

    A softmax of scores that are divided by a temperature above 1 is less sure, below 1 surer; which class is the most
    probable stays the same. Features have no temperature, and at the start all temperatures are 1.

    Parameters
    ----------
    aggregation
        What decides.
    handed
        What is handed over to it.

    Attributes
    ----------
    local, final
        (N,) temperatures of the local CNNs, and () that of the decision.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017.
    """

    takes_missing = True

    local: Tensor
    final: Tensor

    def __init__(self, aggregation: nn.Module, handed: HandedOver) -> None:
        super().__init__()
        self.aggregation, self.handed = aggregation, handed
        self.built_with = getattr(aggregation, "built_with", None)
        self.register_buffer("local", torch.ones(handed.subdomains))
        self.register_buffer("final", torch.ones(()))

    def forward(self, h: Float[Tensor, "B N F"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
        """Return global scores, calibrated."""
        return decide(self.aggregation, self.tempered(h), missing) / self.final

    def tempered(self, h: Float[Tensor, "B N F"]) -> Float[Tensor, "B N F"]:
        """Return what is handed over as it is with the temperatures of the local CNNs."""
        if not self.handed.by_class:
            return h
        local = self.local.unsqueeze(1)
        if not self.handed.are_probabilities:
            return h / local
        return (h.clamp_min(_LEAST).log() / local).softmax(2)

    @torch.no_grad()
    def fit_local(self, scores: Float[Tensor, "m N K"], labels: Int64[Tensor, " m"], missing: Sequence[int]) -> None:
        """Find the temperatures of the local CNNs, from their scores for images that they were not trained on."""
        if self.handed.by_class:
            found = temperatures(scores, labels)
            found[list(missing)] = 1.0
            self.local.copy_(found)

    @torch.no_grad()
    def fit_final(self, h: Float[Tensor, "m N F"], labels: Int64[Tensor, " m"], missing: Sequence[int]) -> None:
        """Find the temperature of the decision, from what was handed over for such images."""
        self.final.fill_(1.0)
        scores = decide(self.eval(), h.to(self.final.device), missing)
        self.final.copy_(temperatures(scores.unsqueeze(1), labels)[0])


def uncalibrated(aggregation: nn.Module, h: Float[Tensor, "m N F"]) -> tuple[nn.Module, Float[Tensor, "m N F"]]:
    """Return what of an aggregation is trained, and what it learns from: with the temperatures of the local CNNs."""
    if isinstance(aggregation, Calibrated):
        return aggregation.aggregation, aggregation.tempered(h.to(aggregation.local.device)).to(h.device)
    return aggregation, h


def temperatures(scores: Float[Tensor, "m N K"], labels: Int64[Tensor, " m"]) -> Float[Tensor, " N"]:
    """Return for each of N networks the temperature with the least cross-entropy, between 0.05 and 20.

    Of a network whose scores are not finite it is 1.

    The cross-entropy of scores times b = 1/T is convex in b; its slope is the mean over the samples of how much larger
    the expected score is than that of the true class. Where the slope is 0 is found by bisection.

    Parameters
    ----------
    scores
        Before the softmax.
    labels
        True classes.

    Examples
    --------
    Right three times of four, and always as sure as 9 to 1: it should be as sure as 3 to 1.

    >>> scores = torch.tensor([[0.9, 0.1]]).log().expand(4, 1, 2)
    >>> T = temperatures(scores, torch.tensor([0, 0, 0, 1]))
    >>> (scores[0] / T).softmax(1)
    tensor([[0.7500, 0.2500]])
    """
    z = scores.double()
    own = z.gather(2, labels.to(z.device).view(-1, 1, 1).expand(-1, z.shape[1], 1)).squeeze(2)
    low, high = (z.new_full((z.shape[1],), 1 / T).log() for T in (_HOTTEST, _COLDEST))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((middle.exp().unsqueeze(1) * z).softmax(2) * z).sum(2)
        too_sure = (expected - own).mean(0) > 0
        low, high = low.where(too_sure, middle), high.where(~too_sure, middle)
    diverged = ~z.isfinite().all(2).all(0)
    return (-(low + high) / 2).exp().masked_fill(diverged, 1.0).to(scores.dtype)

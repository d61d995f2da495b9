"""Majority vote of the local CNNs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation.average import TINY


class Vote(nn.Module):
    """Majority vote of the local CNNs; ties are broken by the sum of their probabilities."""

    takes_any_number = True

    def forward(self, p: Float[Tensor, "B N K"]) -> Float[Tensor, "B K"]:
        """Return the logarithm of the share of votes.

        A sum of probabilities is at most N, so that, divided by N + 1, it never outweighs a vote.

        >>> p = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])  # one vote each; 1.3 against 0.7
        >>> Vote()(p).argmax(1)
        tensor([0])
        """
        members = p.shape[1]
        votes = torch.zeros_like(p).scatter_(2, p.argmax(2, keepdim=True), 1.0).sum(1)
        shares = votes + p.sum(1) / (members + 1)
        return (shares / shares.sum(1, keepdim=True)).clamp_min(TINY).log()

"""A weighted mean of the local probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation.absent import check_dropout, kept
from ddcnn.aggregation.average import TINY


class WeightedAverage(nn.Module):
    """The mean of the local probabilities with a learned weight for each subdomain and class.

    For each class the weights are positive and sum to 1 over the subdomains that are present. At the start it is the
    plain mean.

    Parameters
    ----------
    subdomains, classes
        N and K.
    subdomain_dropout
        As in `ddcnn.aggregation.Dense`; what is left is weighted anew.

    Examples
    --------
    >>> average = WeightedAverage(2, 2)
    >>> p = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]])
    >>> average(p).exp()
    tensor([[0.6000, 0.4000]], grad_fn=<ExpBackward0>)
    """

    takes_missing = True

    def __init__(self, subdomains: int, classes: int, *, subdomain_dropout: float = 0.0) -> None:
        super().__init__()
        self.subdomain_dropout = check_dropout(subdomain_dropout)
        self.logits = nn.Parameter(torch.zeros(subdomains, classes))

    def forward(self, p: Float[Tensor, "B N K"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
        """Return the logarithm of the weighted means; their softmax makes them probabilities."""
        there = kept(p, self.subdomain_dropout if self.training else 0.0, missing)
        weights = self.logits.expand_as(p).masked_fill(~there.unsqueeze(2), -torch.inf).softmax(1)
        return (weights * p).sum(1).clamp_min(TINY).log()

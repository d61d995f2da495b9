"""Decisions without some of the local CNNs: what is missing says nothing, and the others decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.errors import AggregationError


def decide(aggregation: nn.Module, p: Float[Tensor, "B N K"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
    """Return global scores from the local probabilities of the subdomains that are present.

    An aggregation that ``takes_any_number`` of subdomains (a class attribute, as of `Average` and `Vote`) is given
    those that are present alone, so its mean or majority is theirs. Any other is given all N, with `silence` for
    those that are missing.

    Parameters
    ----------
    aggregation
        (B, N, K) -> (B, K).
    p
        Local probabilities. Rows of missing subdomains play no part, not even if they are NaN.
    missing
        Subdomains without a local CNN, 0..N-1.

    Raises
    ------
    AggregationError
        There is no such subdomain, or none is left.

    Examples
    --------
    >>> from ddcnn.aggregation import Average
    >>> p = torch.tensor([[[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]])
    >>> decide(Average(), p, missing=[2]).exp()  # the mean of two
    tensor([[0.6000, 0.4000]])
    """
    missing = checked(missing, p.shape[1])
    if missing and getattr(aggregation, "takes_any_number", False):
        p = p[:, [n for n in range(p.shape[1]) if n not in missing]]
    else:
        p = silence(p, missing)
    scores: Tensor = aggregation(p)
    return scores


def silence(p: Float[Tensor, "B N K"], missing: Sequence[int]) -> Float[Tensor, "B N K"]:
    """Return local probabilities in which missing subdomains say nothing: each class has 1/K.

    >>> silence(torch.tensor([[[0.9, 0.1], [0.3, 0.7]]]), [0])
    tensor([[[0.5000, 0.5000],
             [0.3000, 0.7000]]])
    """
    if not missing:
        return p
    return p.index_fill(1, torch.tensor(missing, device=p.device), 1 / p.shape[2])


def drop(p: Float[Tensor, "B N K"], probability: float) -> Float[Tensor, "B N K"]:
    """Return local probabilities in which subdomains were silenced at random, per sample, but never all of a sample's.

    What is kept is not scaled up, as in ordinary dropout: probabilities stay probabilities, and a decision by more
    subdomains is meant to be a surer one.
    """
    draws = torch.rand(p.shape[:2], device=p.device)
    kept = (draws >= probability).scatter(1, draws.argmax(1, keepdim=True), True)
    return torch.where(kept.unsqueeze(2), p, 1 / p.shape[2])


def checked(missing: Iterable[int], subdomains: int) -> tuple[int, ...]:
    """Return the missing subdomains in order, each once.

    Raises
    ------
    AggregationError
        There is no such subdomain, or none is left.
    """
    found = tuple(sorted(set(missing)))
    for n in found:
        if not 0 <= n < subdomains:
            raise AggregationError(f"subdomain {n} cannot be missing: there is none; use 0 to {subdomains - 1}")
    if len(found) == subdomains:
        raise AggregationError(f"all {subdomains} subdomains are missing; a decision needs at least 1")
    return found

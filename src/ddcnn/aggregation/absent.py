"""Decisions without some of the local CNNs: what is missing says nothing, and the others decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ddcnn.aggregation.handed import handed_to
from ddcnn.errors import AggregationError


def decide(aggregation: nn.Module, p: Float[Tensor, "B N F"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
    """Return global scores from what the subdomains that are present hand over.

    An aggregation that ``takes_any_number`` of subdomains (a class attribute, as of `Average` and `Vote`) is given
    those that are present alone, so its mean or majority is theirs. Any other is given all N, with `silence` for
    those that are missing; one that ``takes_missing`` is told which these are, as its second argument.

    Parameters
    ----------
    aggregation
        (B, N, F) -> (B, K).
    p
        What is handed over: local probabilities (F = K), or what the aggregation's attribute ``handed`` says. Rows of
        missing subdomains play no part, not even if they are NaN.
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
        over = handed_to(aggregation)
        p = silence(p, missing, None if over is None else over.silent)
    told = [missing] if missing and getattr(aggregation, "takes_missing", False) else []
    scores: Tensor = aggregation(p, *told)
    return scores


def silence(p: Float[Tensor, "B N F"], missing: Sequence[int], value: float | None = None) -> Float[Tensor, "B N F"]:
    """Return what is handed over where missing subdomains say nothing: ``value``, or of probabilities 1/K.

    >>> silence(torch.tensor([[[0.9, 0.1], [0.3, 0.7]]]), [0])
    tensor([[[0.5000, 0.5000],
             [0.3000, 0.7000]]])
    """
    if not missing:
        return p
    return p.index_fill(1, torch.tensor(missing, device=p.device), 1 / p.shape[2] if value is None else value)


def drop(p: Float[Tensor, "B N F"], probability: float, value: float | None = None) -> Float[Tensor, "B N F"]:
    """Return what is handed over with subdomains silenced at random, per sample, but never all of a sample's.

    What is kept is not scaled up, as in ordinary dropout: probabilities stay probabilities, and a decision by more
    subdomains is meant to be a surer one.
    """
    return torch.where(kept(p, probability).unsqueeze(2), p, 1 / p.shape[2] if value is None else value)


def kept(p: Float[Tensor, "B N F"], probability: float, missing: Sequence[int] = ()) -> Bool[Tensor, "B N"]:
    """Return which subdomains say something: none that is missing, and of the others a random part per sample.

    Each is left out with this probability, but never all of a sample's.
    """
    there = torch.tensor([n not in missing for n in range(p.shape[1])], device=p.device).expand(p.shape[:2])
    if not probability:
        return there
    draws = torch.rand(p.shape[:2], device=p.device).masked_fill(~there, -1.0)
    return (draws >= probability).scatter(1, draws.argmax(1, keepdim=True), True)


def check_dropout(probability: float) -> float:
    """Return a probability with which subdomains are silenced.

    Raises
    ------
    AggregationError
        It is not at least 0 and below 1.
    """
    if not 0 <= probability < 1:
        raise AggregationError(f"subdomain_dropout = {probability} should be at least 0 and below 1")
    return probability


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

"""How accurate a decision is without some of the local CNNs: each by itself, and more and more at random."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.network import CNNDNN
from ddcnn.seeds import derive_seed

SETS = 10
"""Random sets per number of missing subdomains."""


@torch.no_grad()
def without_some(
    network: CNNDNN, p: Float[Tensor, "n N F"], labels: Int64[Tensor, " n"], seed: int
) -> dict[str, Any] | None:
    """Return the accuracies, 0..1, of a network in eval mode with subdomains missing.

    Parameters
    ----------
    network
        Only its decision is computed again, not its local CNNs.
    p, labels
        What its local CNNs hand over, and the true classes.
    seed
        Which sets are missing depends on this and on the subdomains, so that strategies are compared on the same ones.

    Returns
    -------
    accuracies
        ``"one"``: N accuracies with only this subdomain missing, None for one that the network never had.
        ``"random"``: for 1, 2, 4, ... ``"missing"`` subdomains ``"mean"``, ``"min"`` and ``"max"`` over so many
        ``"sets"``: all sets if there are few, else `SETS` different ones. None if there are fewer than 2 subdomains, or
        no samples.
    """
    present = [n for n in range(p.shape[1]) if n not in network.missing]
    if len(present) < 2 or not len(labels):
        return None

    def accuracy(missing: Sequence[int]) -> float:
        decided = network.decided(network.without(missing).decide(p))
        return float((decided == labels).double().mean())

    one = {n: accuracy([n]) for n in present}
    rows = []
    for count in _counts(len(present)):
        sets = sets_of(present, count, seed)
        values = [one[part[0]] if count == 1 else accuracy(part) for part in sets]
        summary = {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
        rows.append({"missing": count, "sets": len(sets)} | summary)
    return {"one": [one.get(n) for n in range(p.shape[1])], "random": rows}


def sets_of(present: Sequence[int], count: int, seed: int) -> list[tuple[int, ...]]:
    """Return different sets of so many subdomains: all of them if there are few, else `SETS` drawn at random.

    >>> sets_of(range(4), 1, seed=0)
    [(0,), (1,), (2,), (3,)]
    >>> len(sets_of(range(16), 4, seed=0)), sets_of(range(16), 4, seed=0) == sets_of(range(16), 4, seed=0)
    (10, True)
    """
    if math.comb(len(present), count) <= max(SETS, len(present)):
        return list(itertools.combinations(present, count))
    generator = random.Random(derive_seed(seed, "missing", count))
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < SETS:
        drawn[tuple(sorted(generator.sample(present, count)))] = None
    return list(drawn)


def mean_of_folds(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means over folds of what `without_some` found, by strategy; without what a fold does not have."""
    return {
        name: {
            "one": [_mean([fold[name]["one"][n] for fold in folds]) for n in range(len(first["one"]))],
            "random": [
                {key: _mean([fold[name]["random"][i][key] for fold in folds]) for key in row}
                for i, row in enumerate(first["random"])
            ],
        }
        for name, first in folds[0].items()
        if all(name in fold and len(fold[name]["random"]) == len(first["random"]) for fold in folds)
    }


def _counts(subdomains: int) -> list[int]:
    """Return 1, 2, 4, ... below the number of subdomains.

    >>> _counts(4), _counts(9)
    ([1, 2], [1, 2, 4, 8])
    """
    return [2**i for i in range((subdomains - 1).bit_length())]


def _mean(values: Sequence[float | int | None]) -> float | int | None:
    known = [value for value in values if value is not None]
    if len(set(known)) == 1:
        return known[0]  # such as a count, which stays whole
    return float(np.mean(known)) if known else None

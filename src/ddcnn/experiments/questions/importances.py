"""Which of several parameters a figure hangs on, and what a search of another size would have found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_TREES = 16
_LEAST = 4  # trials: with fewer, a forest has nothing to split


class Importance(NamedTuple):
    """How much of the variance over the trials one parameter explains alone.

    Attributes
    ----------
    share
        Main effect, 0..1.
    low, high
        95 % percentile bootstrap over trials.
    chance
        What it would be, at most in 95 of 100 cases, if figures had nothing to do with trials.
    """

    share: float
    low: float
    high: float
    chance: float


def importances(
    trials: Sequence[Mapping[str, float]], values: Sequence[float], *, repeats: int = 100, seed: int = 0
) -> dict[str, Importance]:
    """Return the importance of each parameter: functional analysis of variance on a random forest (fANOVA).

    F. Hutter, H. Hoos, K. Leyton-Brown, An efficient approach for assessing hyperparameter importance, ICML 2014, as
    Optuna computes it. What single parameters do not explain are their interactions, and what the forest did not learn.
    The interval is a percentile bootstrap; a resample repeats trials, so that the forest finds it easier than it is and
    intervals lie a little high. Parameters that are everywhere the same are left out.

    Parameters
    ----------
    trials
        Per trial, its positive parameters by name; those whose values are all whole numbers are taken for such.
    values
        Per trial, the figure.
    repeats
        Resamples, and permutations, from which interval and chance are read.

    Returns
    -------
    by_name
        The most important first; empty with fewer than 4 trials.

    Raises
    ------
    ImportError
        Optuna is not there: ``ddcnn[experiments]``.
    """
    varied = [name for name in trials[0] if len({trial[name] for trial in trials}) > 1] if trials else []
    if len(trials) < _LEAST or not varied:
        return {}
    table, figures = np.array([[trial[name] for name in varied] for trial in trials]), np.asarray(values, float)
    rng, n = np.random.default_rng(seed), len(trials)
    found = _shares(varied, table, table, figures, seed)
    again = (rng.integers(0, n, n) for _ in range(repeats))
    resampled = np.array([_shares(varied, table, table[drawn], figures[drawn], seed) for drawn in again])
    chance = np.array([_shares(varied, table, table, rng.permutation(figures), seed) for _ in range(repeats)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    limit = np.percentile(chance, 95, axis=0)
    rows = {name: Importance(*map(float, (found[i], low[i], high[i], limit[i]))) for i, name in enumerate(varied)}
    return dict(sorted(rows.items(), key=lambda row: -row[1].share))


def _shares(names: Sequence[str], every: np.ndarray, table: np.ndarray, values: np.ndarray, seed: int) -> list[float]:
    """Return the share of each column; ``every`` has the range of the parameters."""
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
    from optuna.importance import FanovaImportanceEvaluator

    if np.ptp(values) == 0:
        return [0.0] * len(names)
    ranges: dict[str, BaseDistribution] = {}
    for name, column in zip(names, every.T, strict=True):
        low, high = column.min(), column.max()
        whole = bool((column % 1 == 0).all())
        ranges[name] = (
            IntDistribution(int(low), int(high), log=True) if whole else FloatDistribution(low, high, log=True)
        )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for row, value in zip(table, values, strict=True):
            given = {name: ranges[name].to_external_repr(number) for name, number in zip(names, row, strict=True)}
            study.add_trial(optuna.create_trial(params=given, distributions=ranges, value=float(value)))
        shares = FanovaImportanceEvaluator(n_trees=_TREES, seed=seed).evaluate(study)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return [float(shares[name]) for name in names]


def best_of(values: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Return what the best of n of these trials is, if n are drawn at random: (n, mean, low, high) for all n.

    Exact, without replacement: the best of n is at most the k-th of N values with probability C(k, n) / C(N, n)
    (compare J. Dodge et al., Show your work, EMNLP 2019). ``low`` and ``high`` hold 95 % of the draws.

    >>> best_of([0.2, 0.6])
    [(1.0, 0.4, 0.2, 0.6), (2.0, 0.6, 0.6, 0.6)]
    """
    ordered, N = np.sort(np.asarray(values, float)), len(values)
    found = []
    for n in range(1, N + 1):
        below = np.array([math.comb(k, n) / math.comb(N, n) for k in range(1, N + 1)])
        mean = float(ordered @ np.diff(below, prepend=0.0))
        low, high = (float(ordered[np.searchsorted(below, level)]) for level in (0.025, 0.975))
        found.append((float(n), mean, low, high))
    return found

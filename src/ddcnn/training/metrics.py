"""Numbers that say more than accuracy where classes are not equally frequent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def auc(scores: Float[Tensor, "n K"], labels: Int64[Tensor, "n"]) -> float | None:
    """Return the area under the ROC curve, 0..1; for more than two classes the mean over each against the rest.

    It is the probability that a random sample of the class has a higher score than a random one of the rest, ties
    counting half (Mann and Whitney 1947). None where a class has no sample, all are of one class, or a score is NaN.

    >>> auc(torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]), torch.tensor([0, 0, 1]))
    1.0
    """
    classes = scores.shape[1]
    if torch.isnan(scores).any() or not len(labels):
        return None
    columns = range(classes) if classes > 2 else (1,)
    parts = [_area(scores[:, k].double(), labels == k) for k in columns]
    return None if None in parts else sum(part for part in parts if part is not None) / len(parts)


def macro_f1(confusion: Sequence[Sequence[int]]) -> float | None:
    """Return the mean over the classes of F1, 2 TP / (2 TP + FP + FN), from (K, K) counts with rows = true class.

    Classes that neither occur nor are decided for are left out; None if that is all.

    >>> round(macro_f1([[2, 1], [0, 1]]), 4)
    0.7333
    """
    counts = torch.tensor(confusion, dtype=torch.float64)
    total = counts.sum(0) + counts.sum(1)
    there = total > 0
    return float((2 * counts.diagonal()[there] / total[there]).mean()) if there.any() else None


def sureness(scores: Float[Tensor, "n K"], labels: Int64[Tensor, "n"]) -> dict[str, float | None]:
    """Return how well probabilities, the softmax of scores, tell how sure decisions are; None: a score is not finite.

    Returns
    -------
    nll
        Mean of minus the logarithm of the probability of the true class (cross-entropy).
    brier
        Mean of the sum over the classes of (probability - 1 for the true class, else 0) squared, 0 to 2 (Brier 1950).
    ece
        Expected calibration error, 0..1: `expected_calibration_error`.

    Examples
    --------
    >>> {name: round(value, 4) for name, value in sureness(torch.zeros(2, 2), torch.tensor([0, 1])).items()}
    {'nll': 0.6931, 'brier': 0.5, 'ece': 0.0}
    """
    if not len(labels) or not torch.isfinite(scores).all():
        return dict.fromkeys(("nll", "brier", "ece"))
    logs = scores.double().log_softmax(1)
    p = logs.exp()
    return {
        "nll": float(-logs.gather(1, labels.unsqueeze(1)).mean()),
        "brier": float((p - F.one_hot(labels, p.shape[1])).square().sum(1).mean()),
        "ece": expected_calibration_error(p, labels),
    }


def expected_calibration_error(p: Float[Tensor, "n K"], labels: Int64[Tensor, "n"], bins: int = 15) -> float:
    """Return the expected calibration error of probabilities.

    Decisions are put into bins of equal width by their probability, each bin with its upper edge; the error is the mean
    over the bins, weighted by their decisions, of |share of right decisions - mean probability|
    (Guo, Pleiss, Sun, Weinberger, ICML 2017).

    >>> p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    >>> round(expected_calibration_error(p, torch.tensor([0, 1, 1])), 4)  # (2 |1/2 - 0.9| + |1 - 0.7|) / 3
    0.3667
    """
    _, sure, right = _binned(p, labels, bins)
    return float((right - sure).abs().sum() / len(labels))


def reliability(p: Float[Tensor, "n K"], labels: Int64[Tensor, "n"], bins: int = 15) -> list[dict[str, Any]]:
    """Return those bins of `expected_calibration_error` that hold decisions.

    Returns
    -------
    bin, count
        The number of the bin, and that of its decisions.
    confidence, accuracy
        Their mean probability, and the share of right ones, 0..1.

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    >>> [(one["bin"], one["count"], round(one["accuracy"], 3)) for one in reliability(p, torch.tensor([0, 1, 1]), 4)]
    [(2, 1, 1.0), (3, 2, 0.5)]
    """
    counts, sure, right = (column.tolist() for column in _binned(p, labels, bins))
    return [
        {"bin": number, "count": int(n), "confidence": s / n, "accuracy": r / n}
        for number, (n, s, r) in enumerate(zip(counts, sure, right, strict=True))
        if n
    ]


def pooled_bins(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the bins of all decisions from those of several parts, such as folds; empty ones are left out.

    >>> pooled_bins([[{"bin": 3, "count": 1, "confidence": 0.25, "accuracy": 1.0}],
    ...              [{"bin": 3, "count": 3, "confidence": 0.5, "accuracy": 0.0}]])
    [{'bin': 3, 'count': 4, 'confidence': 0.4375, 'accuracy': 0.25}]
    """
    found = []
    for number in sorted({one["bin"] for part in parts for one in part}):
        same = [one for part in parts for one in part if one["bin"] == number]
        count = sum(one["count"] for one in same)
        means = {name: sum(one["count"] * one[name] for one in same) / count for name in ("confidence", "accuracy")}
        found.append({"bin": number, "count": count} | means)
    return found


def _binned(p: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each bin the number of decisions, the sum of their probabilities, and the number of right ones."""
    sure, decided = p.double().max(1)
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    where, none = torch.bucketize(sure, edges), torch.zeros(bins, dtype=torch.float64)
    columns = torch.ones_like(sure), sure, (decided == labels).double()
    counts, sums, right = (none.index_add(0, where, column) for column in columns)
    return counts, sums, right


def class_figures(confusion: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    """Return figures of each class from (K, K) counts with rows = true class.

    Returns
    -------
    samples
        K counts: how many are of the class.
    precision
        TP / (TP + FP), 0..1: the share of the decisions for the class that are right. None where there is no decision.
    recall
        TP / (TP + FN), 0..1: the share of the samples of the class that are found. None where there is no sample.
    f1
        2 TP / (2 TP + FP + FN), 0..1. None where there is neither.

    Examples
    --------
    >>> class_figures([[2, 2], [0, 1]])["recall"], class_figures([[1, 0], [1, 0]])["precision"]
    ([0.5, 1.0], [0.5, None])
    """
    right = [row[k] for k, row in enumerate(confusion)]
    true, decided = [sum(row) for row in confusion], [sum(column) for column in zip(*confusion, strict=True)]

    def shares(parts: Sequence[int], wholes: Sequence[int]) -> list[float | None]:
        return [part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]

    both = [t + d for t, d in zip(true, decided, strict=True)]
    f1 = shares([2 * n for n in right], both)
    return {"samples": true, "precision": shares(right, decided), "recall": shares(right, true), "f1": f1}


def _area(scores: Tensor, positive: Tensor) -> float | None:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]  # of equals, the mean of their ranks
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))

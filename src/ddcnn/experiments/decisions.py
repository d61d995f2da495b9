"""What trained networks say of each part of the data, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.planning import Setup
from ddcnn.strategies import StrategyResult
from ddcnn.training import accuracy_of, auc, macro_f1, sureness
from ddcnn.training.metrics import reliability

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Decisions:
    """Decisions of one strategy.

    Attributes
    ----------
    accuracy
        Share of right decisions, 0..1, per part.
    confusion
        (K, K) counts on the test part: rows are true classes.
    auc, f1
        Area under the ROC curve and macro F1 on the test part, 0..1; None where they are not defined.
    sureness
        How well the probabilities of the test part tell how sure the decisions are: `ddcnn.training.sureness`.
    reliability
        `ddcnn.training.metrics.reliability` of the test part; empty if a score is not finite.
    """

    accuracy: dict[str, float | None]
    confusion: list[list[int]]
    auc: float | None
    f1: float | None
    sureness: dict[str, float | None]
    reliability: list[dict[str, Any]]


def judge(setup: Setup, result: StrategyResult) -> Decisions:
    """Evaluate one result on every part."""
    scores = {part: result.scores(part) for part in PARTS}
    classes = {part: result.network.decided(of_part) for part, of_part in scores.items()}
    labels = {part: _labels(setup, part) for part in PARTS}
    accuracy = {part: _accuracy(classes[part] == labels[part]) for part in PARTS}
    counts = confusion(labels["test"], classes["test"], setup.data.classes)
    logs = scores["test"].double().log_softmax(1)
    bins = reliability(logs.exp(), labels["test"]) if torch.isfinite(logs).all() else []
    sure = sureness(scores["test"], labels["test"])
    return Decisions(accuracy, counts, auc(logs, labels["test"]), macro_f1(counts), sure, bins)


def _accuracy(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None


def judge_local(setup: Setup, local: StrategyResult) -> list[dict[str, Any]]:
    """Evaluate each local CNN by itself: accuracies per part, and per class on the test part; None if missing."""
    classes, probabilities = setup.data.classes, local.local_probabilities
    per_part = {part: accuracy_of(probabilities.of(part), _labels(setup, part)) for part in PARTS}
    labels, right = _labels(setup, "test"), probabilities.of("test").argmax(2)
    rows: list[dict[str, Any]] = [
        {f"{part}_accuracy": float(per_part[part][n]) if len(_labels(setup, part)) else None for part in PARTS}
        | {"class_accuracy": _class_accuracy(labels, right[:, n], classes)}
        for n in range(right.shape[1])
    ]
    for n in local.network.missing:
        rows[n] = dict.fromkeys(rows[n]) | {"class_accuracy": [None] * classes}
    return rows


def decided(setup: Setup, results: Mapping[str, StrategyResult]) -> dict[str, Tensor]:
    """Return the class that each result decides for, per test image in the order of the split; and ``labels``.

    What pairs of strategies decide about the same images says more than their accuracies: McNemar's test needs it.
    """
    smallest = torch.uint8 if setup.data.classes <= 256 else torch.int32
    found = {name: result.network.decided(result.scores("test")) for name, result in results.items()}
    return {name: classes.to(smallest) for name, classes in (found | {"labels": _labels(setup, "test")}).items()}


def confusion(labels: Int64[Tensor, " n"], decided: Int64[Tensor, " n"], classes: int) -> list[list[int]]:
    """Return (K, K) counts: row = true class, column = decision.

    >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    [[1, 1], [0, 1]]
    """
    counts = torch.bincount(labels * classes + decided, minlength=classes**2).view(classes, classes)
    return [[int(n) for n in row] for row in counts]


def _labels(setup: Setup, part: str) -> Int64[Tensor, " n"]:
    return setup.data.dataset.labels[getattr(setup.data.split, part)]


def _class_accuracy(labels: Tensor, decided: Tensor, classes: int) -> list[float | None]:
    return [
        float((decided[labels == k] == k).float().mean()) if bool((labels == k).any()) else None for k in range(classes)
    ]

"""What trained networks say of each part of the data, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.experiments.missing import without_some
from ddcnn.models import LocalCNNs
from ddcnn.strategies import LocalResult, Problem, StrategyResult, local_probabilities
from ddcnn.training import accuracy_of, auc, macro_f1

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
    """

    accuracy: dict[str, float]
    confusion: list[list[int]]
    auc: float | None
    f1: float | None


class Judge:
    """Evaluates networks; local CNNs that several strategies share are evaluated once.

    Parameters
    ----------
    local
        Local CNNs of which something may be known already, because an aggregation has learned from it.
    """

    def __init__(self, problem: Problem, local: LocalResult | None = None) -> None:
        self.problem = problem
        self.local = local
        self._seen: dict[tuple[int, str], Tensor] = {}

    def judge(self, trained: StrategyResult) -> Decisions:
        """Evaluate one strategy on every part."""
        accuracy = {part: self.accuracy(trained, part) for part in PARTS}
        scores, labels = self._scores(trained, "test"), self._labels("test")
        counts = confusion(labels, scores.argmax(1), self.problem.classes)
        return Decisions(accuracy, counts, auc(scores.double().log_softmax(1), labels), macro_f1(counts))

    def accuracy(self, trained: StrategyResult, part: str) -> float:
        """Return the share of right decisions on one part."""
        return float((self._scores(trained, part).argmax(1) == self._labels(part)).double().mean())

    def judge_missing(self, trained: StrategyResult) -> dict[str, Any] | None:
        """Evaluate one strategy on the test part with subdomains missing, see `without_some`."""
        network, device = trained.network, self.problem.device
        network.aggregation.eval()
        probabilities = self._probabilities(network.local_cnns, "test").to(device)
        return without_some(network, probabilities, self._labels("test").to(device), self.problem.config.seed)

    def judge_local(self, network: LocalCNNs, missing: Sequence[int] = ()) -> list[dict[str, Any]]:
        """Evaluate each local CNN by itself: accuracies per part, and per class on the test part; None if missing."""
        per_part = {part: accuracy_of(self._probabilities(network, part), self._labels(part)) for part in PARTS}
        labels, right = self._labels("test"), self._probabilities(network, "test").argmax(2)
        rows: list[dict[str, Any]] = [
            {f"{part}_accuracy": float(per_part[part][n]) for part in PARTS}
            | {"class_accuracy": _class_accuracy(labels, right[:, n], self.problem.classes)}
            for n in range(network.members)
        ]
        for n in missing:
            rows[n] = dict.fromkeys(rows[n]) | {"class_accuracy": [None] * self.problem.classes}
        return rows

    @torch.no_grad()
    def _scores(self, trained: StrategyResult, part: str) -> Float[Tensor, "n K"]:
        trained.network.aggregation.eval()
        probabilities = self._probabilities(trained.network.local_cnns, part).to(self.problem.device)
        return trained.network.decide(probabilities).float().cpu()

    def _probabilities(self, network: LocalCNNs, part: str) -> Float[Tensor, "n N K"]:
        if self.local is not None and network is self.local.network:
            return self.local.of_part(self.problem, part)
        key = (id(network), part)
        if key not in self._seen:
            self._seen[key] = local_probabilities(self.problem, network, getattr(self.problem.split, part))
        return self._seen[key]

    def _labels(self, part: str) -> Int64[Tensor, " n"]:
        return self.problem.dataset.labels[getattr(self.problem.split, part)]


def confusion(labels: Int64[Tensor, " n"], decided: Int64[Tensor, " n"], classes: int) -> list[list[int]]:
    """Return (K, K) counts: row = true class, column = decision.

    >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    [[1, 1], [0, 1]]
    """
    counts = torch.bincount(labels * classes + decided, minlength=classes**2).view(classes, classes)
    return [[int(n) for n in row] for row in counts]


def _class_accuracy(labels: Tensor, decided: Tensor, classes: int) -> list[float | None]:
    return [
        float((decided[labels == k] == k).float().mean()) if bool((labels == k).any()) else None for k in range(classes)
    ]

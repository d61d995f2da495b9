"""Decision thresholds: how probable a class must be to be decided for, chosen on validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.config import AggregationConfig
from ddcnn.errors import ConfigError, nearest

_SWEEPS = 20  # over the classes; a handful suffice
_BETTER = 1e-9
_BEYOND = 1.0  # logarithm by which a threshold stands beyond all samples


@dataclass(frozen=True)
class Cuts:
    """Samples, ordered by how soon they are decided to be of class k; cut c gives the first c of them to it.

    Attributes
    ----------
    k
        The class whose threshold moves.
    labels, other
        (n,): the true classes, and what is decided where it is not k.
    classes
        K.
    """

    k: int
    labels: Int64[Tensor, " n"]
    other: Int64[Tensor, " n"]
    classes: int

    def counted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return per cut and class (n + 1, K) right decisions and all decisions, and per class (K,) all samples."""
        labels, other = F.one_hot(self.labels, self.classes), F.one_hot(self.other, self.classes)
        to_k = torch.zeros_like(other)
        to_k[:, self.k] = 1
        changes = to_k * labels - other * labels, to_k - other
        first = (other * labels).sum(0), other.sum(0)
        right, decided = (torch.cat([a[None], a + b.cumsum(0)]).double() for a, b in zip(first, changes, strict=True))
        return right, decided, labels.sum(0).double()


def choose(
    scores: Float[Tensor, "n K"], labels: Int64[Tensor, " n"], rule: str, costs: Float[Tensor, "K K"] | None = None
) -> tuple[float, ...]:
    """Return K thresholds, whose sum is 1, that serve a goal best; the class with the largest p / threshold is decided.

    With two classes it is the best threshold there is: class 1 is decided where its probability is above the second
    number. With more, thresholds are moved one after the other until none gets better. Among equally good ones, those
    next to 1 / K are taken; that of a class without a sample stays as it is.

    Parameters
    ----------
    scores
        Their softmax is the probability of each class.
    labels
        The true classes of these images, which must not be test images.
    rule
        ``"f1"``: the mean over the classes of F1. ``"youden"``: the mean of their recalls, which for two classes is
        Youden's index (J + 1) / 2 (Youden 1950). ``"cost"``: the smallest mean cost.
    costs
        Row: true class, column: decision.

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> [round(t, 2) for t in choose(p.log(), torch.tensor([0, 0, 0, 1]), "f1")]
    [0.65, 0.35]
    """
    logs = scores.double().log_softmax(1)
    classes, present = logs.shape[1], labels.unique().tolist()
    if len(present) < 2 or not torch.isfinite(logs).all():
        return (1 / classes,) * classes
    value = {"f1": _f1, "youden": _mean_recall}[rule] if costs is None else _cheapness(costs.double())
    bias = torch.zeros(classes, dtype=torch.float64)  # minus the logarithm of a threshold, but for a common factor
    best = -torch.inf
    for _ in range(_SWEEPS):
        before = best
        for k in present if classes > 2 else [1]:
            bias[k], best = _best_bias(logs, labels, bias, k, value)
        if best <= before + _BETTER:
            break
    return tuple((-bias).softmax(0).tolist())


def _best_bias(
    logs: Tensor, labels: Tensor, bias: Tensor, k: int, value: Callable[[Cuts], Tensor]
) -> tuple[float, float]:
    """Return the bias of class k that is best while the others stay, and how good it is."""
    biased = logs + bias
    biased[:, k] = -torch.inf
    most, other = biased.max(1)
    needed, order = (most - logs[:, k]).sort()  # a sample is decided to be of class k where its bias is above this
    values = value(Cuts(k, labels[order], other[order], logs.shape[1]))
    possible = torch.ones(len(values), dtype=torch.bool)
    possible[1:-1] = needed[1:] > needed[:-1]
    now = torch.searchsorted(needed, bias[k])  # the cut as it is
    edges = torch.cat([needed[:1] - 2 * _BEYOND, needed, needed[-1:] + 2 * _BEYOND])
    middles = (edges[1:] + edges[:-1]) / 2
    good = possible & (values >= values[possible].max() - _BETTER)
    if good[now]:
        return float(bias[k]), float(values[now])
    away = (middles - bias[k]).abs().masked_fill(~good, torch.inf)
    return float(middles[away.argmin()]), float(values[away.argmin()])


def _f1(cuts: Cuts) -> Tensor:
    right, decided, there = cuts.counted()
    total = decided + there
    f1 = torch.where(total > 0, 2 * right / total, 0.0)
    return f1.sum(1) / (total > 0).sum(1)


def _mean_recall(cuts: Cuts) -> Tensor:
    right, _, there = cuts.counted()
    return (right[:, there > 0] / there[there > 0]).mean(1)


def _cheapness(costs: Tensor) -> Callable[[Cuts], Tensor]:
    def value(cuts: Cuts) -> Tensor:
        before = costs[cuts.labels, cuts.other]
        change = costs[cuts.labels, cuts.k] - before
        return -(before.sum() + torch.cat([change.new_zeros(1), change.cumsum(0)])) / len(before)

    return value


def check_thresholds(config: AggregationConfig, classes: Sequence[str]) -> None:
    """Raise a `ConfigError` if thresholds are asked for that these classes cannot have."""
    if isinstance(config.threshold, float) and len(classes) != 2:
        raise ConfigError(
            f"aggregation.threshold = {config.threshold:g} is for two classes, and there are {len(classes)}; use f1, "
            "youden or cost"
        )
    cost_matrix(config.costs or {}, classes)


def cost_matrix(costs: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> Float[Tensor, "K K"]:
    """Return what decisions cost, row: true class, column: decision; 0 if right, 1 if wrong, where nothing is said.

    Raises
    ------
    ConfigError
        There is no such class.

    Examples
    --------
    >>> cost_matrix({"ill": {"healthy": 10.0}}, ["healthy", "ill"]).tolist()
    [[0.0, 1.0], [10.0, 0.0]]
    """
    matrix = 1 - torch.eye(len(classes))
    where = {name: k for k, name in enumerate(classes)}
    for true, row in costs.items():
        for decided, cost in row.items():
            for name in (true, decided):
                if name not in where:
                    raise ConfigError(f"aggregation.costs names a class {name!r}: {nearest(name, classes)}")
            matrix[where[true], where[decided]] = cost
    return matrix

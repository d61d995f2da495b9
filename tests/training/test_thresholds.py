"""Decision thresholds, against scikit-learn and all possible ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, roc_curve
from torch import Tensor

from ddcnn.config import AggregationConfig, Config
from ddcnn.errors import ConfigError
from ddcnn.training.thresholds import check_thresholds, choose, cost_matrix


def imbalanced(classes: int, samples: int, seed: int = 0, *, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Scores that know a little of the labels; class 0 has half of the samples, and is favoured."""
    rng = np.random.default_rng(seed)
    shares = np.array([classes - 1, *[1] * (classes - 1)]) / (2 * (classes - 1))
    labels = np.concatenate([np.arange(classes), rng.choice(classes, samples - classes, p=shares)])
    scores = rng.normal(size=(samples, classes)) + 1.2 * np.eye(classes)[labels]
    scores[:, 0] += 1.5
    return torch.from_numpy(scores.round(0) if ties else scores), torch.from_numpy(labels)


def decided(scores: Tensor, thresholds: tuple[float, ...]) -> np.ndarray:
    return (scores.softmax(1) / torch.tensor(thresholds)).argmax(1).numpy()


@pytest.mark.parametrize(("samples", "ties"), [(4, False), (60, False), (60, True), (301, False)])
def test_of_two_classes_no_threshold_is_better(samples: int, ties: bool) -> None:
    scores, labels = imbalanced(2, samples, samples, ties=ties)
    p, y = scores.softmax(1)[:, 1].numpy(), labels.numpy()
    f1, youden = (choose(scores, labels, rule) for rule in ("f1", "youden"))
    assert sum(f1) == pytest.approx(1)
    every = [np.full(len(y), k) for k in (0, 1)] + [p > t for t in p]
    best = max(f1_score(y, one, average="macro", zero_division=0) for one in every)
    assert f1_score(y, p > f1[1], average="macro") == pytest.approx(best)
    false, true, _ = roc_curve(y, p)
    found = p > youden[1]
    assert found[y == 1].mean() - found[y == 0].mean() == pytest.approx((true - false).max())
    costs = torch.tensor([[0.0, 1.0], [7.0, 0.0]])

    def cost(one: np.ndarray) -> float:
        return float((confusion_matrix(y, one, labels=[0, 1]) * costs.numpy()).sum())

    cheap = choose(scores, labels, "cost", costs)
    assert cost(p > cheap[1]) == min(map(cost, every))


@pytest.mark.parametrize("rule", ["f1", "youden", "cost"])
def test_of_more_classes_no_single_threshold_can_be_moved_to_a_better_place(rule: str) -> None:
    scores, labels = imbalanced(4, 80)
    costs = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)).fill_diagonal_(0).double()

    def good(thresholds: tuple[float, ...]) -> float:
        counts = confusion_matrix(labels, decided(scores, thresholds), labels=range(4))
        if rule == "f1":
            return float(f1_score(labels, decided(scores, thresholds), average="macro"))
        return float(
            (counts.diagonal() / counts.sum(1)).mean() if rule == "youden" else -(counts * costs.numpy()).sum()
        )

    found = choose(scores, labels, rule, costs if rule == "cost" else None)
    assert good(found) > good((0.25,) * 4)
    for k, factor in itertools.product(range(4), np.geomspace(0.01, 100, 40)):
        moved = [t * (factor if n == k else 1) for n, t in enumerate(found)]
        assert good(tuple(moved)) <= good(found) + 1e-9


def test_what_gains_nothing_is_left_as_it_is() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    right = 5.0 * torch.nn.functional.one_hot(labels, 4)
    assert choose(right, labels, "f1") == pytest.approx((0.25,) * 4)  # class 3 has no sample
    assert choose(right, torch.zeros(5, dtype=torch.int64), "f1") == (0.25,) * 4
    assert choose(torch.full((5, 4), torch.nan), labels, "youden") == (0.25,) * 4


def test_costs_by_name_and_what_is_refused() -> None:
    assert cost_matrix({"b": {"a": 3.0}}, ["a", "b", "c"]).tolist() == [[0, 1, 1], [3, 0, 1], [1, 1, 0]]
    with pytest.raises(ConfigError, match=r"aggregation\.costs names a class 'il': did you mean 'ill'\?"):
        cost_matrix({"il": {"healthy": 3.0}}, ["healthy", "ill"])
    with pytest.raises(ConfigError, match=r"threshold = 0\.3 is for two classes, and there are 3; use f1"):
        check_thresholds(AggregationConfig(threshold=0.3), ["a", "b", "c"])


@pytest.mark.parametrize("value", ["f2", "1", 0.0, True, [0.5], "nan"])
def test_what_a_threshold_may_be(value: object) -> None:
    with pytest.raises(ConfigError, match="should be f1, youden, cost, or a probability between 0 and 1"):
        Config.parse({"aggregation": {"threshold": value}})


def test_costs_and_the_rule_that_needs_them_go_together() -> None:
    with pytest.raises(ConfigError, match="give both or neither"):
        Config.parse({"aggregation": {"threshold": "cost"}})
    config = Config.parse({"aggregation": {"threshold": "cost", "costs": {0: {1: 2}}}})  # as YAML reads names
    assert config.aggregation.costs == {"0": {"1": 2}}
    assert Config.parse({"aggregation": {"threshold": "0.25"}}).aggregation.threshold == 0.25

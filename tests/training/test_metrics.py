"""AUC, F1 and how sure decisions are, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from ddcnn.training import auc, class_figures, macro_f1, sureness
from ddcnn.training.metrics import expected_calibration_error, reliability


def _problem(classes: int, *, seed: int, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate(
        [np.arange(classes), rng.choice(classes, 90, p=np.arange(1, classes + 1) / sum(range(classes + 1)))]
    )
    scores = rng.random((len(labels), classes)) + 0.5 * np.eye(classes)[labels]
    scores = scores.round(1) if ties else scores
    return torch.from_numpy(scores / scores.sum(1, keepdims=True)), torch.from_numpy(labels)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_auc_equals_scikit_learn(classes: int, ties: bool) -> None:
    scores, labels = _problem(classes, seed=classes, ties=ties)
    given = scores[:, 1] if classes == 2 else scores
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, given, multi_class="ovr", average="macro"))


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_equals_scikit_learn(classes: int) -> None:
    scores, labels = _problem(classes, seed=1)
    counts = confusion_matrix(labels, scores.argmax(1), labels=range(classes))
    assert macro_f1(counts.tolist()) == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"))


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_each_class_equal_scikit_learn(classes: int) -> None:
    scores, labels = _problem(classes, seed=2)
    decided = scores.argmax(1)
    expected = precision_recall_fscore_support(labels, decided)
    found = class_figures(confusion_matrix(labels, decided).tolist())
    for name, values in zip(("precision", "recall", "f1", "samples"), expected, strict=True):
        assert found[name] == pytest.approx(values.tolist())


def test_figures_of_a_class_that_is_not_there() -> None:
    found = class_figures([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert found == {
        "samples": [3, 1, 0], "precision": [0.75, None, None], "recall": [1.0, 0.0, None], "f1": [6 / 7, 0.0, None],
    }  # fmt: skip


def test_where_they_are_not_defined() -> None:
    scores = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert auc(scores, torch.tensor([0, 0, 1, 1])) is None  # class 2 has no sample
    assert auc(scores[:, :2], torch.tensor([1, 1, 1, 1])) is None
    assert auc(scores[:0], torch.tensor([], dtype=torch.long)) is None
    assert auc(torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1])) is None
    assert macro_f1([[0, 0], [0, 0]]) is None
    assert macro_f1([[3, 0, 0], [0, 2, 0], [0, 0, 0]]) == 1  # a class that is neither there nor decided for


def test_constant_scores_are_worth_a_guess() -> None:
    assert auc(torch.full((6, 2), 0.5), torch.tensor([0, 0, 0, 0, 1, 1])) == 0.5


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_nll_and_brier_score_equal_scikit_learn(classes: int) -> None:
    scores, labels = _problem(classes, seed=classes)
    p = scores.mul(7).softmax(1)
    found = sureness(scores * 7, labels)
    assert found["nll"] == pytest.approx(log_loss(labels, p, labels=range(classes)))
    expected = brier_score_loss(np.eye(classes)[labels], p, scale_by_half=False)
    assert found["brier"] == pytest.approx(expected)


def test_the_calibration_error_by_hand() -> None:
    """Bins of 1/15: 0.6 is the upper edge of one, 0.62 and 0.66 lie in the next, 0.95 in the last."""
    sure = torch.tensor([0.6, 0.62, 0.66, 0.95, 0.95, 1.0], dtype=torch.float64)
    p = torch.stack([sure, 1 - sure], 1)
    labels = torch.tensor([0, 0, 1, 0, 0, 1])  # right, right, wrong, right, right, wrong
    bins = [abs(1 - 0.6), abs(1 - (0.62 + 0.66)), abs(2 - (0.95 + 0.95 + 1.0))]
    assert expected_calibration_error(p, labels) == pytest.approx(sum(bins) / 6)
    assert expected_calibration_error(p, labels, bins=1) == pytest.approx(abs(4 - float(sure.sum())) / 6)


def test_scores_that_are_not_finite_say_nothing_of_sureness() -> None:
    nothing = {"nll": None, "brier": None, "ece": None}
    assert sureness(torch.tensor([[0.0, torch.nan]]), torch.tensor([0])) == nothing
    assert sureness(torch.empty(0, 2), torch.empty(0, dtype=torch.long)) == nothing


def test_reliability_is_the_curve_of_scikit_learn() -> None:
    scores, labels = _problem(4, seed=3)
    p = scores.double().softmax(1)
    sure, decided = p.max(1)
    right, confident = calibration_curve((decided == labels).numpy(), sure.numpy(), n_bins=15)
    bins = reliability(p, labels)
    np.testing.assert_allclose([one["accuracy"] for one in bins], right)
    np.testing.assert_allclose([one["confidence"] for one in bins], confident)
    assert sum(one["count"] for one in bins) == len(labels)

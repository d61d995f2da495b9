"""AUC and F1, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, roc_auc_score

from ddcnn.training import auc, class_figures, macro_f1


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

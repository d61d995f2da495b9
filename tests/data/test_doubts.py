"""Equal images, and labels that are wrong on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddcnn.data import Dataset
from ddcnn.data.doubts import copies, suspects
from ddcnn.errors import DataError


def test_copies_are_found_whatever_their_class() -> None:
    images = torch.arange(6 * 4, dtype=torch.uint8).reshape(6, 1, 2, 2)
    images[4], images[5], images[3] = images[1], images[1], images[0]
    dataset = Dataset("d", images, torch.tensor([0, 1, 1, 0, 0, 1]), ("a", "b"))
    assert copies(dataset) == [[0, 3], [1, 4, 5]]


def test_labels_that_were_changed_are_found() -> None:
    """Predictions that know the truth with 90 %: exactly what was changed is doubted."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    probabilities = np.full((120, 3), 0.05)
    probabilities[np.arange(120), truth] = 0.9 + 0.02 * rng.random(120)
    probabilities /= probabilities.sum(1, keepdims=True)
    labels, wrong = truth.copy(), [4, 50, 77]
    labels[wrong] = (labels[wrong] + 1) % 3
    assert sorted(suspects(torch.from_numpy(labels), probabilities).tolist()) == wrong
    assert len(suspects(torch.from_numpy(truth), probabilities)) == 0


def test_the_least_believed_comes_first() -> None:
    probabilities = np.tile([[0.9, 0.1], [0.1, 0.9]], (20, 1))
    labels = np.tile([0, 1], 20)
    labels[[3, 8]] = 0, 1
    probabilities[3], probabilities[8] = (0.05, 0.95), (0.99, 0.01)
    assert suspects(torch.from_numpy(labels), probabilities).tolist() == [8, 3]


def test_a_class_without_samples_is_told() -> None:
    with pytest.raises(DataError, match=r"^wrong labels are looked for among samples of all 3 classes, got none of 2$"):
        suspects(torch.tensor([0, 1, 0]), np.full((3, 3), 1 / 3))


def test_without_cleanlab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cleanlab.filter", None)
    with pytest.raises(DataError, match=r"^wrong labels are found by cleanlab: pip install 'ddcnn\[experiments\]' \("):
        suspects(torch.tensor([0, 1]), np.eye(2))

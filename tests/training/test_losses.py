"""Losses and weights, against torch for one network at a time and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddcnn.training import accuracy_of, balanced_weights, member_losses

GENERATOR = torch.Generator().manual_seed(0)
SCORES = 3 * torch.randn(11, 3, 4, generator=GENERATOR)
LABELS = torch.randint(0, 4, (11,), generator=GENERATOR)
WEIGHTS = torch.tensor([0.5, 1.0, 2.5, 4.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equal_to_torch_for_each_member(smoothing: float, weights: torch.Tensor | None) -> None:
    scores = SCORES.clone().requires_grad_()
    losses = member_losses(scores, LABELS, label_smoothing=smoothing, class_weights=weights)
    losses.sum().backward()
    assert losses.shape == (3,)
    for n in range(3):
        own = SCORES[:, n].clone().requires_grad_()
        expected = F.cross_entropy(own, LABELS, weights, label_smoothing=smoothing)
        expected.backward()
        torch.testing.assert_close(losses[n], expected)
        torch.testing.assert_close(scores.grad[:, n], own.grad)  # type: ignore[index]


def test_low_precision_scores_give_losses_in_float32() -> None:
    assert member_losses(SCORES.bfloat16(), LABELS).dtype == torch.float32


def test_accuracy() -> None:
    expected = [np.mean(SCORES[:, n].numpy().argmax(1) == LABELS.numpy()) for n in range(3)]
    assert accuracy_of(SCORES, LABELS).tolist() == pytest.approx(expected)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0, 2, 2, 1, 2, 0, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    np.testing.assert_allclose(balanced_weights(labels, 3), expected, rtol=1e-6)


def test_a_class_without_samples_has_a_finite_weight() -> None:
    assert torch.isfinite(balanced_weights(torch.tensor([0, 0, 2]), 3)).all()

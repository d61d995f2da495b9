"""An objective of the user's is minimised as it is written: against a training loop in plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.data.batches import Batches
from ddcnn.errors import TrainingError
from ddcnn.training import Loss, Single, fit, member_losses

pytestmark = pytest.mark.usefixtures("seeded")

CONFIG = TrainingConfig(epochs=3, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant", select="last")
SAMPLES, CLASSES = 23, 3


def soft_targets(scores: Tensor, batch: Batch, at: float) -> Loss:
    """Distillation: a network learns the probabilities of a teacher (Hinton et al. 2015)."""
    return Loss(F.cross_entropy(scores[:, 0], batch.extras["teacher"]).view(1))


def data(**extras: Tensor) -> tuple[Batches, Batches]:
    images, labels = torch.randn(SAMPLES, 1, 3, 4, dtype=torch.float64), torch.randint(CLASSES, (SAMPLES,))
    train = Batches(images, labels, torch.arange(4, SAMPLES), 8, seed=5, extras=extras)
    return train, Batches(images, labels, torch.arange(4), 4)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)).double()


def test_soft_targets_are_those_of_the_samples_of_a_batch() -> None:
    teacher = torch.randn(SAMPLES, CLASSES, dtype=torch.float64).softmax(1)
    train, validation = data(teacher=teacher)
    trained = network()
    by_hand = copy.deepcopy(trained)
    fit(Single(trained), train, validation, CONFIG, classes=CLASSES, stage="student", objective=soft_targets)
    for epoch in range(1, CONFIG.epochs + 1):
        for batch in train.shuffled(epoch):
            by_hand.zero_grad()
            (-(teacher[batch.samples] * by_hand(batch.inputs).log_softmax(1)).sum(1).mean()).backward()
            with torch.no_grad():
                for parameter in by_hand.parameters():
                    parameter.sub_(CONFIG.lr * parameter.grad)
    torch.testing.assert_close(trained.state_dict(), by_hand.state_dict(), rtol=1e-10, atol=1e-12)


def test_further_terms_are_minimised_and_not_reported() -> None:
    train, validation = data()
    trained, told = network(), []

    def only_further(scores: Tensor, batch: Batch, at: float) -> Loss:
        told.append(at)
        return Loss(0 * scores[0, :, 0] + 7, scores.square().mean())

    before = [parameter.detach().clone() for parameter in trained.parameters()]
    history = fit(Single(trained), train, validation, CONFIG, classes=CLASSES, stage="further", objective=only_further)
    assert [row["train_loss"] for row in history.rows] == [[7.0]] * CONFIG.epochs
    assert not any(torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))
    assert told == pytest.approx([i / history.steps for i in range(history.steps)])


def test_the_loss_of_the_members_decides_on_divergence() -> None:
    train, validation = data()

    def not_finite(scores: Tensor, batch: Batch, at: float) -> Loss:
        return Loss(scores.sum((0, 2)) * torch.nan)

    with pytest.raises(TrainingError, match="the loss became NaN or infinite in epoch 1; use a smaller learning rate"):
        fit(Single(network()), train, validation, CONFIG, classes=CLASSES, stage="ill", objective=not_finite)


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_weights_of_samples_are_those_of_copies(class_weights: Tensor | None) -> None:
    scores, labels = torch.randn(5, 2, CLASSES), torch.randint(CLASSES, (5,))
    counts = torch.tensor([0, 1, 3, 2, 1])
    found = member_losses(scores, labels, class_weights=class_weights, sample_weights=counts.float())
    copies = torch.arange(5).repeat_interleave(counts)
    expected = member_losses(scores[copies], labels[copies], class_weights=class_weights)
    torch.testing.assert_close(found, expected)
    assert member_losses(scores, labels, sample_weights=torch.zeros(5)).tolist() == [0, 0]

"""One epoch of training, and what is written down of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.training.optimizers import schedule_factor
from ddcnn.training.progress import Progress
from ddcnn.training.step import Step


def train_epoch(
    step: Step, train: Batches, config: TrainingConfig, epoch: int, progress: Progress
) -> dict[str, Tensor]:
    """Train one epoch; return learning rates at its end, losses and accuracies, (M,) each."""
    cast(nn.Module, step.trainee).train()
    sums = _Sums(step.trainee.members, train.device)
    total = config.epochs * train.steps
    for done, (inputs, labels) in enumerate(train.shuffled(epoch), (epoch - 1) * train.steps):
        schedule = schedule_factor(config, done, total)
        losses, correct = step(inputs, labels, schedule=schedule, at=done / total)
        sums.add(losses, correct, len(labels))
        progress.advance(len(labels), sums.mean)
    return {
        "lr": step.optimizer.rates * schedule,
        "train_loss": sums.loss / sums.steps,
        "train_accuracy": sound(sums.correct / sums.samples, sums.loss),
    }


def plain(measured: Mapping[str, Tensor], active: Sequence[int], members: int) -> dict[str, list[float | None]]:
    """Return one entry per member, None for those that have stopped and for what is not finite."""
    row: dict[str, list[float | None]] = {name: [None] * members for name in measured}
    for name, values in measured.items():
        for n, value in zip(active, values.tolist(), strict=True):
            row[name][n] = float(f"{value:.7g}") if math.isfinite(value) else None
    return row


def sound(accuracy: Float[Tensor, "M"], loss: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Return accuracies, NaN where the loss is not finite: scores that are not numbers decide nothing."""
    return accuracy.where(loss.isfinite(), math.nan)


class _Sums:
    """Running sums of one epoch."""

    def __init__(self, members: int, device: torch.device) -> None:
        self.loss: Tensor = torch.zeros(members, device=device)
        self.correct: Tensor = torch.zeros(members, device=device)
        self.samples = 0
        self.steps = 0

    def add(self, losses: Tensor, correct: Tensor, samples: int) -> None:
        self.loss = self.loss + losses  # on the device: no waiting for it in each step
        self.correct = self.correct + correct
        self.samples += samples
        self.steps += 1

    def mean(self) -> tuple[float, float]:
        return float(self.loss.mean()) / self.steps, float(self.correct.mean()) / self.samples

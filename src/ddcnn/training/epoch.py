"""One epoch of training, and its metrics."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.data.two_views import TwoViews
from ddcnn.training.optimizers import schedule_factor
from ddcnn.training.progress import Progress
from ddcnn.training.step import Step


class Epoch:
    """One epoch of training, which can be left between two steps and taken up again.

    Attributes
    ----------
    done
        Steps that are done.
    samples
        Samples that were seen in them.
    """

    def __init__(self, step: Step, train: Batches | TwoViews, config: TrainingConfig, number: int) -> None:
        self.step, self.train, self.config, self.number = step, train, config, number
        self.done = 0
        self.samples = 0
        self._loss: Tensor = torch.zeros(step.network.members, device=train.device)
        self._correct: Tensor = torch.zeros(step.network.members, device=train.device)

    def run(self, progress: Progress) -> Generator[None, None, None]:
        """Train the steps that are left; it pauses after each."""
        cast(nn.Module, self.step.network).train()
        total = self.config.epochs * self.train.steps
        with closing(self.train.shuffled(self.number, self.done)) as batches:
            for batch in batches:
                done = (self.number - 1) * self.train.steps + self.done
                held = self.number <= self.config.freeze
                losses, correct = self.step(batch, schedule=self._schedule(done), at=done / total, held=held)
                self._loss = self._loss + losses  # on the device: no waiting for it in each step
                self._correct = self._correct + correct
                self.samples += len(batch)
                self.done += 1
                progress.advance(len(batch), self.mean)
                yield

    def mean(self) -> tuple[float, float]:
        """Return loss and accuracy so far, over all members."""
        return float(self._loss.mean()) / self.done, float(self._correct.mean()) / self.samples

    def measured(self) -> dict[str, Tensor]:
        """Return learning rates at the end of the epoch, losses and accuracies, (M,) each."""
        last = self.number * self.train.steps - 1
        return {
            "lr": self.step.optimizer.rates * self._schedule(last),
            "train_loss": self._loss / self.done,
            "train_accuracy": nan_if_diverged(self._correct / self.samples, self._loss),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return its running sums."""
        return {"loss": self._loss, "correct": self._correct}

    def load(self, done: int, samples: int, tensors: Mapping[str, Tensor]) -> None:
        """Take up an epoch that was left after ``done`` steps."""
        self.done, self.samples = done, samples
        self._loss = tensors["loss"].to(self._loss.device)
        self._correct = tensors["correct"].to(self._loss.device)

    def _schedule(self, done: int) -> float:
        return schedule_factor(self.config, done, self.config.epochs * self.train.steps)


def to_row(measured: Mapping[str, Tensor], active: Sequence[int], members: int) -> dict[str, list[float | None]]:
    """Return one entry per member, None for those that have stopped and for what is not finite."""
    row: dict[str, list[float | None]] = {name: [None] * members for name in measured}
    for name, values in measured.items():
        for n, value in zip(active, values.tolist(), strict=True):
            row[name][n] = float(f"{value:.7g}") if math.isfinite(value) else None
    return row


def nan_if_diverged(accuracy: Float[Tensor, "M"], loss: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Return accuracies, NaN where the loss is not finite: scores that are not numbers decide nothing."""
    return accuracy.where(loss.isfinite(), math.nan)

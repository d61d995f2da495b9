"""The training loop: for one network or for N local CNNs at once, each with its own best epoch and its own stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.training.optimizers import build_optimizer, schedule_factor
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.progress import Progress
from ddcnn.training.step import Step, balanced_weights, member_losses, parameters_of
from ddcnn.training.trainee import Trainee


@dataclass
class History:
    """What happened in a training.

    Attributes
    ----------
    rows
        One per epoch, as written to ``metrics.jsonl``; values of members are lists.
    best_epochs
        Per member, the epoch (from 1) whose parameters it now has.
    seconds
        Wall-clock time of the whole training.
    steps
        Number of optimiser steps.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0


def fit(
    trainee: Trainee,
    train: Batches,
    validation: Batches,
    config: TrainingConfig,
    *,
    classes: int,
    stage: str,
    precision: PrecisionName = "float32",
    progress: Progress | None = None,
) -> History:
    """Train all members of a trainee in place, and leave each with the parameters of its selected epoch."""
    progress = progress or Progress()
    start = time.perf_counter()
    step = _build_step(trainee, train, config, classes, precision)
    watch = _Watch(trainee, config)
    history = History()
    total = config.epochs * train.steps
    progress.begin(stage, epochs=config.epochs, steps=train.steps, members=trainee.members)
    for epoch in range(1, config.epochs + 1):
        cast(nn.Module, trainee).train()
        sums = _Sums(trainee.members, train.inputs.device)
        for inputs, labels in train.shuffled(epoch):
            lr = config.lr * schedule_factor(config, history.steps, total)
            losses, correct = step(inputs, labels, lr=lr, factors=watch.factors, at=history.steps / total)
            history.steps += 1
            sums.add(losses, correct, len(labels))
            progress.advance(len(labels), sums.mean)
        loss, accuracy = evaluate(trainee, validation, precision=precision)
        history.rows.append(
            {
                "stage": stage,
                "epoch": epoch,
                "seconds": round(time.perf_counter() - start, 3),
                "lr": lr,
                "train_loss": _plain(sums.loss / sums.steps),
                "train_accuracy": _plain(sums.correct / sums.samples),
                "validation_loss": _plain(loss),
                "validation_accuracy": _plain(accuracy),
            }
        )
        progress.epoch(history.rows[-1])
        if watch.observe(epoch, loss, accuracy):
            break
    watch.restore()
    progress.end()
    history.best_epochs = watch.best_epochs
    history.seconds = time.perf_counter() - start
    return history


@torch.no_grad()
def predict_scores(
    trainee: Trainee, batches: Batches, *, precision: PrecisionName = "float32"
) -> Float[Tensor, "n M K"]:
    """Return the scores of all samples in order, in float32, on the CPU."""
    cast(nn.Module, trainee).eval()
    scores = []
    for inputs, _ in batches.in_order():
        with autocast(precision, inputs.device):
            scores.append(trainee(inputs).float().cpu())
    return torch.cat(scores)


def evaluate(
    trainee: Trainee, batches: Batches, *, precision: PrecisionName = "float32"
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"]]:
    """Return cross-entropy and accuracy (0..1) of each member."""
    scores = predict_scores(trainee, batches, precision=precision)
    labels = batches.labels[batches.indices.to(batches.labels.device)].cpu()
    return member_losses(scores, labels), accuracy_of(scores, labels)


def accuracy_of(scores: Float[Tensor, "n M K"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "M"]:
    """Return the share of samples, 0..1, that each member has right."""
    return (scores.argmax(2) == labels.unsqueeze(1)).float().mean(0)


def _build_step(
    trainee: Trainee, train: Batches, config: TrainingConfig, classes: int, precision: PrecisionName
) -> Step:
    weights = None
    if config.class_weights == "balanced":
        labels = train.labels[train.indices.to(train.labels.device)]
        weights = balanced_weights(labels.cpu(), classes).to(labels.device)
    optimizer = build_optimizer(parameters_of(trainee), config)
    return Step(trainee, optimizer, precision, config.label_smoothing, weights)


class _Watch:
    """Per member: the best epoch and its parameters, early stopping, and plateaus of the validation loss."""

    def __init__(self, trainee: Trainee, config: TrainingConfig) -> None:
        members = trainee.members
        self.trainee, self.config = trainee, config
        self.factors = torch.ones(members)
        self.best_epochs = [0] * members
        self.states: list[dict[str, Tensor]] = [{} for _ in range(members)]
        self._best = [(-1.0, 0.0)] * members
        self._lowest = [float("inf")] * members
        self._waited = [0] * members
        self._improved = [0] * members

    def observe(self, epoch: int, loss: Tensor, accuracy: Tensor) -> bool:
        """Take note of an epoch; return whether all members have stopped."""
        for n in range(self.trainee.members):
            if self._stopped(n, epoch - 1):
                continue
            finite = bool(torch.isfinite(loss[n]))
            quality = (float(accuracy[n]), -float(loss[n])) if finite else (-0.5, 0.0)  # worse than any that converged
            if self.config.select == "last" or quality > self._best[n]:
                self.states[n] = {k: v.detach().clone() for k, v in self.trainee.member_state(n).items()}
                self.best_epochs[n] = epoch
            if quality > self._best[n]:
                self._best[n], self._improved[n] = quality, epoch
            self._watch_plateau(n, float(loss[n]))
        return all(self._stopped(n, epoch) for n in range(self.trainee.members))

    def restore(self) -> None:
        """Give each member the parameters of its selected epoch."""
        for n, state in enumerate(self.states):
            self.trainee.load_member_state(n, state)

    def _stopped(self, n: int, epoch: int) -> bool:
        return self.config.patience is not None and epoch - self._improved[n] >= self.config.patience

    def _watch_plateau(self, n: int, loss: float) -> None:
        if self.config.schedule != "plateau":
            return
        if loss < self._lowest[n] - 1e-4:
            self._lowest[n], self._waited[n] = loss, 0
            return
        self._waited[n] += 1
        if self._waited[n] >= self.config.plateau_patience:
            self.factors[n] *= self.config.gamma
            self._waited[n] = 0


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


def _plain(values: Tensor) -> Sequence[float | None]:
    return [round(float(v), 6) if torch.isfinite(v) else None for v in values]

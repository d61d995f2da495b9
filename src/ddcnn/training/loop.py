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
from ddcnn.errors import TrainingError
from ddcnn.seeds import derive_seed
from ddcnn.training.epoch import plain, sound, train_epoch
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.progress import Progress
from ddcnn.training.step import Step, balanced_weights, deterministic_layers, member_losses
from ddcnn.training.trainee import Trainee
from ddcnn.training.watch import Watch


@dataclass
class History:
    """What happened in a training.

    Attributes
    ----------
    rows
        One per epoch, as written to ``metrics.jsonl``; values of members are lists, with None for what is not finite
        and for members that have stopped.
    best_epochs
        Per member, the epoch (from 1) whose parameters it now has; 0: those it began with.
    diverged
        Per member, the epoch in which its loss became NaN or infinite, which stopped it; None: never.
    seconds
        Wall-clock time of the whole training.
    steps
        Number of optimiser steps.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)
    diverged: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0

    @property
    def epochs(self) -> int:
        """Number of epochs of the longest of the trainings."""
        return max((row["epoch"] for row in self.rows), default=0)


def fit(
    trainee: Trainee,
    train: Batches,
    validation: Batches,
    config: TrainingConfig,
    *,
    classes: int,
    stage: str,
    own: Sequence[TrainingConfig] | None = None,
    precision: PrecisionName = "float32",
    progress: Progress | None = None,
) -> History:
    """Train all members of a trainee in place, and leave each with the parameters of its selected epoch.

    A member that has stopped, or whose loss is not finite any more, leaves after the epoch: the others go on as they
    would have, and it costs no more time. ``own`` holds a configuration per member where their learning rates or
    weight decays differ.

    Raises
    ------
    TrainingError
        No member had a finite loss in the first epoch.
    """
    progress = progress or Progress()
    start = time.perf_counter()
    step = _build_step(trainee, train, config, own, classes, precision)
    watch = Watch(trainee, config)
    history = History(best_epochs=watch.best_epochs, diverged=watch.diverged)
    progress.begin(stage, epochs=config.epochs, steps=train.steps, members=trainee.members)
    stay = watch.active
    for epoch in range(1, config.epochs + 1):
        if len(stay) < step.trainee.members:
            step, train, validation = step.subset(stay), train.subset(stay), validation.subset(stay)
        step.optimizer.scale(watch.factors[watch.active])
        with deterministic_layers(train.device, derive_seed(train.seed, stage, epoch)):
            measured = train_epoch(step, train, config, epoch, progress)
        loss, accuracy = evaluate(step.trainee, validation, precision=precision)
        measured |= {"validation_loss": loss, "validation_accuracy": sound(accuracy, loss)}
        row: dict[str, Any] = {"stage": stage, "epoch": epoch, "seconds": round(time.perf_counter() - start, 3)}
        row |= plain(measured, watch.active, trainee.members)
        history.rows.append(row)
        history.steps += train.steps
        progress.epoch(row)
        stay = watch.observe(epoch, step.trainee, *step.trainee.agreed(measured["train_loss"], loss, accuracy))
        for n in (n for n, when in enumerate(watch.diverged) if when == epoch):
            progress.note(f"{stage}, {trainee.name(n)}: {_divergence(epoch, watch.best_epochs[n])}")
        if not stay:
            break
    watch.restore(trainee)
    progress.end()
    if not any(watch.best_epochs):
        who = "" if trainee.members == 1 else f" of all {trainee.members} networks"
        advice = f"use a smaller learning rate than {config.lr:g}"
        raise TrainingError(f"{stage}: the loss{who} became NaN or infinite in epoch 1; {advice}")
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
    labels = batches.labels[batches.indices.to(batches.device)].cpu()
    return member_losses(scores, labels), accuracy_of(scores, labels)


def accuracy_of(scores: Float[Tensor, "n M K"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "M"]:
    """Return the share of samples, 0..1, that each member has right."""
    return (scores.argmax(2) == labels.unsqueeze(1)).float().mean(0)


def _build_step(
    trainee: Trainee,
    train: Batches,
    config: TrainingConfig,
    own: Sequence[TrainingConfig] | None,
    classes: int,
    precision: PrecisionName,
) -> Step:
    weights = None
    if config.class_weights == "balanced":
        labels = train.labels[train.indices.to(train.device)]
        weights = balanced_weights(labels.cpu(), classes).to(labels.device)
    return Step(trainee, MemberOptimizer(trainee, config, own), precision, config.label_smoothing, weights)


def _divergence(epoch: int, best: int) -> str:
    kept = f"those of epoch {best}" if best else "those it began with"
    return f"loss became NaN or infinite in epoch {epoch}; its parameters are {kept}; a smaller learning rate may help"

"""The training loop: for one network or for N local CNNs at once, each with its own best epoch and its own stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.errors import InterruptionError, TrainingError
from ddcnn.seeds import derive_seed
from ddcnn.training.checkpoint import Checkpoints, CheckpointStore, State
from ddcnn.training.epoch import Epoch, nan_if_diverged, to_row
from ddcnn.training.epoch_selector import EpochSelector
from ddcnn.training.evaluation import evaluate
from ddcnn.training.interruption import INTERRUPTION
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import TrainableMembers
from ddcnn.training.precision import PrecisionName
from ddcnn.training.progress import Progress
from ddcnn.training.stage_timer import peak_memory
from ddcnn.training.step import Step, balanced_weights, deterministic_layers


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
    earlier_seconds
        The part of ``seconds`` before the training was interrupted, or all of them if it was found finished.
    peak_memory_bytes
        Largest memory until then; None: not known.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)
    diverged: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    earlier_seconds: float = 0.0
    peak_memory_bytes: int | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs of the longest of the trainings."""
        return max((row["epoch"] for row in self.rows), default=0)


def fit(
    trainee: TrainableMembers,
    train: Batches,
    validation: Batches,
    config: TrainingConfig,
    *,
    classes: int,
    stage: str,
    own: Sequence[TrainingConfig] | None = None,
    precision: PrecisionName = "float32",
    progress: Progress | None = None,
    checkpoints: CheckpointStore | None = None,
) -> History:
    """Train all members of a trainee in place, and leave each with the parameters of its selected epoch.

    A member that has stopped, or whose loss is not finite any more, leaves after the epoch: the others go on as they
    would have, and it costs no more time. ``own`` holds a configuration per member where their learning rates or
    weight decays differ. With ``checkpoints`` a training that was interrupted, or killed, goes on where the last one
    was written, and one that was finished is not trained again.

    Raises
    ------
    TrainingError
        No member had a finite loss in the first epoch.
    InterruptionError
        A signal asked to end; a checkpoint was written.
    """
    training = _Training(trainee, train, validation, config, own, classes, precision, stage)
    return training.run(progress or Progress(), checkpoints)


def finished(checkpoints: Checkpoints) -> tuple[list[dict[str, torch.Tensor]], History] | None:
    """Return the states of all members, and the history, of a training that was finished, perhaps elsewhere."""
    state = checkpoints.load()
    if state is None or not state.numbers["finished"]:
        return None
    numbers, watch = state.numbers, state.numbers["watch"]
    history = History(
        rows=numbers["rows"],
        best_epochs=watch["best_epochs"],
        diverged=watch["diverged"],
        seconds=numbers["seconds"],
        steps=numbers["steps"],
        earlier_seconds=numbers["seconds"],
        peak_memory_bytes=numbers["peak_memory_bytes"],
    )
    return [state.part(f"kept/{n}") for n in range(len(history.best_epochs))], history


class _Training:
    """A training, its state, and how far it is."""

    def __init__(
        self,
        trainee: TrainableMembers,
        train: Batches,
        validation: Batches,
        config: TrainingConfig,
        own: Sequence[TrainingConfig] | None,
        classes: int,
        precision: PrecisionName,
        stage: str,
    ) -> None:
        self.trainee, self.train, self.validation, self.config, self.stage = trainee, train, validation, config, stage
        self.precision = precision
        self.step = _build_step(trainee, train, config, own, classes, precision)
        self.watch = EpochSelector(trainee, config)
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        self.epoch = 1  # that is under way, or comes next
        self._start = time.perf_counter()
        self._earlier_seconds = 0.0
        self._earlier_peak: int | None = None

    def run(self, progress: Progress, checkpoints: CheckpointStore | None) -> History:
        config, train = self.config, self.train
        progress.begin(self.stage, epochs=config.epochs, steps=train.steps, members=self.trainee.members)
        found = None if checkpoints is None else checkpoints.load()
        under_way = None if found is None else self._load(found)
        if found is not None:
            progress.resumed(self.rows)
        finished = found is not None and found.numbers["finished"]
        with INTERRUPTION.deferred():
            while not finished and self.epoch <= config.epochs and self.watch.active:
                self._one_epoch(under_way, progress, checkpoints)
                under_way = None
            self.watch.restore(self.trainee)
            if not any(self.watch.best_epochs):
                raise TrainingError(self._all_diverged())
            if checkpoints is not None and not finished:
                checkpoints.save(self._state(None, finished=True))
        progress.end()
        return self._history()

    def _one_epoch(self, under_way: State | None, progress: Progress, checkpoints: CheckpointStore | None) -> None:
        active = self.watch.active
        self.step.optimizer.scale(self.watch.factors[active])
        epoch = Epoch(self.step, self.train, self.config, self.epoch)
        with deterministic_layers(self.train.device, derive_seed(self.train.seed, self.stage, self.epoch)):
            if under_way is not None:
                epoch.load(under_way.numbers["done"], under_way.numbers["samples"], under_way.part("epoch"))
                _set_random_state(under_way.part("random"), self.train.device)
            with closing(epoch.run(progress)) as steps:
                for _ in steps:
                    self._pause(epoch, checkpoints)
        self._end_epoch(epoch, progress)
        if checkpoints is not None and self.watch.active and self.epoch <= self.config.epochs:
            (due,) = self.step.trainee.broadcast_metrics(torch.tensor(checkpoints.due))
            if due:
                checkpoints.save(self._state(None))

    def _pause(self, epoch: Epoch, checkpoints: CheckpointStore | None) -> None:
        """Between two steps: write a checkpoint if it is time for one, and end if that was asked for."""
        if checkpoints is None:
            INTERRUPTION.check()
            return
        write, signal = checkpoints.asked(INTERRUPTION.signal)
        if write:
            checkpoints.save(self._state(epoch))
        if signal is not None:
            raise InterruptionError(signal)

    def _end_epoch(self, epoch: Epoch, progress: Progress) -> None:
        watch, members = self.watch, self.trainee.members
        measured = epoch.measured()
        loss, accuracy = evaluate(self.step.trainee, self.validation, precision=self.precision)
        measured |= {"validation_loss": loss, "validation_accuracy": nan_if_diverged(accuracy, loss)}
        row: dict[str, Any] = {"stage": self.stage, "epoch": epoch.number, "seconds": round(self._seconds, 3)}
        row |= to_row(measured, watch.active, members)
        self.rows.append(row)
        self.steps += self.train.steps
        self.epoch += 1
        progress.epoch(row)
        trainee = self.step.trainee
        stay = watch.observe(epoch.number, trainee, *trainee.broadcast_metrics(measured["train_loss"], loss, accuracy))
        for n in (n for n, when in enumerate(watch.diverged) if when == epoch.number):
            progress.note(f"{self.stage}, {self.trainee.name(n)}: {_divergence(epoch.number, watch.best_epochs[n])}")
        self._leave(stay)

    def _leave(self, stay: Sequence[int]) -> None:
        """Go on with some of the members alone; they are those at these positions."""
        if stay and len(stay) < self.step.trainee.members:
            self.step = self.step.subset(stay)
            self.train, self.validation = self.train.subset(stay), self.validation.subset(stay)

    def _state(self, epoch: Epoch | None, *, finished: bool = False) -> State:
        """Return everything that the rest of the training depends on; in the middle of an epoch, or between two."""
        tensors = {f"kept/{name}": value for name, value in self.watch.kept().items()}
        if not finished:
            for n, optimizer in zip(self.watch.active, self.step.optimizer.states(), strict=True):
                state = self.step.trainee.member_state(self.watch.active.index(n))
                tensors |= {f"member/{n}/{name}": value for name, value in state.items()}
                tensors |= {f"optimizer/{n}/{name}": value for name, value in optimizer.items()}
        if epoch is not None:
            tensors |= {f"epoch/{name}": value for name, value in epoch.tensors().items()}
            tensors |= {f"random/{name}": value for name, value in _random_state(self.train.device).items()}
        peaks = [self._earlier_peak or 0, peak_memory(self.train.device) or 0]
        numbers = {
            "finished": finished,
            "epoch": self.epoch,
            "done": 0 if epoch is None else epoch.done,
            "samples": 0 if epoch is None else epoch.samples,
            "rows": self.rows,
            "steps": self.steps,
            "seconds": self._seconds,
            "peak_memory_bytes": max(peaks) or None,
            "watch": self.watch.numbers(),
        }
        return State(tensors, numbers)

    def _load(self, state: State) -> State | None:
        """Take over a state; return it if it is from the middle of an epoch."""
        numbers = state.numbers
        self.epoch, self.rows, self.steps = numbers["epoch"], numbers["rows"], numbers["steps"]
        self._earlier_seconds, self._earlier_peak = numbers["seconds"], numbers["peak_memory_bytes"]
        self.watch.load(numbers["watch"], state.part("kept"))
        if numbers["finished"]:
            return None
        for n in self.watch.active:
            self.trainee.load_member_state(n, state.part(f"member/{n}"))
        self._leave(self.watch.active)
        self.step.optimizer.load_states([state.part(f"optimizer/{n}") for n in self.watch.active])
        return state if numbers["done"] else None

    @property
    def _seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._start

    def _history(self) -> History:
        return History(
            rows=self.rows,
            best_epochs=self.watch.best_epochs,
            diverged=self.watch.diverged,
            seconds=self._seconds,
            steps=self.steps,
            earlier_seconds=self._earlier_seconds,
            peak_memory_bytes=self._earlier_peak,
        )

    def _all_diverged(self) -> str:
        who = "" if self.trainee.members == 1 else f" of all {self.trainee.members} networks"
        advice = f"use a smaller learning rate than {self.config.lr:g}"
        return f"{self.stage}: the loss{who} became NaN or infinite in epoch 1; {advice}"


def _build_step(
    trainee: TrainableMembers,
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


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)

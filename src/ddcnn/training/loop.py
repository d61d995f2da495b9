"""The training loop: for one network or for N local CNNs at once, each with its own best epoch and its own stop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import torch

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.data.two_views import TwoViews
from ddcnn.errors import InterruptionError, TrainingError
from ddcnn.seeds import derive_seed, own_random_numbers
from ddcnn.training.checkpoint import Checkpoints, CheckpointStore, State
from ddcnn.training.distribution import Distribution
from ddcnn.training.epoch import Epoch, nan_if_diverged, to_row
from ddcnn.training.epoch_selector import EpochSelector
from ddcnn.training.evaluation import evaluate
from ddcnn.training.interruption import INTERRUPTION
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import TrainableMembers
from ddcnn.training.objective import Objective, cross_entropy_of
from ddcnn.training.precision import PrecisionName
from ddcnn.training.progress import Progress
from ddcnn.training.replay import replay_of
from ddcnn.training.slowness import StepWatch
from ddcnn.training.stage_timer import peak_memory
from ddcnn.training.step import Step
from ddcnn.training.weight_average import WeightAverage, batches_to_measure, has_running_statistics


@dataclass
class History:
    """Metrics, selected epochs, time and memory of a training.

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
    network: TrainableMembers,
    train: Batches | TwoViews,
    validation: Batches,
    config: TrainingConfig,
    *,
    classes: int,
    stage: str,
    own: Sequence[TrainingConfig] | None = None,
    precision: PrecisionName = "float32",
    graphs: bool = False,
    objective: Objective | None = None,
    distribution: Distribution | None = None,
    progress: Progress | None = None,
    checkpoints: CheckpointStore | None = None,
) -> History:
    """Train all members of a network in place, and leave each with the parameters of its selected epoch.

    A member that has stopped, or whose loss is not finite any more, leaves after the epoch: the others go on as they
    would have, and it costs no more time. With ``checkpoints`` a training that was interrupted, or killed, goes on
    where the last one was written, and one that was finished is not trained again.

    Parameters
    ----------
    own
        A configuration per member, where their learning rates or weight decays differ.
    graphs
        Whether a GPU may replay forward and backward pass as a CUDA graph: see `ddcnn.training.replay`.
    objective
        What is minimised; None: the cross-entropy, with the label smoothing and class weights of the configuration.
    distribution
        What is exchanged with other processes; None: nothing.

    Raises
    ------
    TrainingError
        No member had a finite loss in the first epoch.
    InterruptionError
        A signal asked to end; a checkpoint was written.
    """
    if objective is None:
        objective = cross_entropy_of(config, train.labels[train.indices.to(train.device)], classes)
    distribution = distribution or Distribution()
    optimizer = MemberOptimizer(network, config, own, distribution)
    average = None if config.ema is None else WeightAverage(network, config.ema)
    progress = progress or Progress()
    replay = None
    if graphs:
        replay = replay_of(network, objective, distribution, note=lambda line: progress.note(f"{stage}: {line}"))
    step = Step(network, optimizer, precision, objective, distribution, config.sam, average, replay)
    return _Training(step, train, validation, config, stage).run(progress, checkpoints)


def finished(checkpoints: Checkpoints) -> tuple[list[dict[str, torch.Tensor]], History] | None:
    """Return the states of all members, and the history, of a training that was finished, perhaps elsewhere."""
    state = checkpoints.load()
    if state is None or not state.numbers["finished"]:
        return None
    numbers, selector = state.numbers, state.numbers["watch"]
    history = History(
        rows=numbers["rows"],
        best_epochs=selector["best_epochs"],
        diverged=selector["diverged"],
        seconds=numbers["seconds"],
        steps=numbers["steps"],
        earlier_seconds=numbers["seconds"],
        peak_memory_bytes=numbers["peak_memory_bytes"],
    )
    return [state.part(f"kept/{n}") for n in range(len(history.best_epochs))], history


class _Training:
    """A training, its state, and how far it is."""

    def __init__(
        self, step: Step, train: Batches | TwoViews, validation: Batches, config: TrainingConfig, stage: str
    ) -> None:
        self.step, self.train, self.validation, self.config, self.stage = step, train, validation, config, stage
        self.network, self.precision, self.distribution = step.network, step.precision, step.distribution
        self.selector = EpochSelector(self.network, config)
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        self.epoch = 1  # that is under way, or comes next
        self._watch = StepWatch()
        self._start = time.perf_counter()
        self._earlier_seconds = 0.0
        self._earlier_peak: int | None = None

    def run(self, progress: Progress, checkpoints: CheckpointStore | None) -> History:
        config, train = self.config, self.train
        progress.begin(self.stage, epochs=config.epochs, steps=train.steps, members=self.network.members)
        found = None if checkpoints is None else checkpoints.load()
        under_way = None if found is None else self._load(found)
        if found is not None:
            progress.resumed(self.rows)
        finished = found is not None and found.numbers["finished"]
        with INTERRUPTION.deferred():
            while not finished and self.epoch <= config.epochs and self.selector.active:
                self._one_epoch(under_way, progress, checkpoints)
                under_way = None
            self.selector.restore(self.network)
            if not any(self.selector.best_epochs):
                raise TrainingError(self._all_diverged())
            if checkpoints is not None and not finished:
                checkpoints.save(self._state(None, finished=True))
        progress.end()
        return self._history()

    def _one_epoch(self, under_way: State | None, progress: Progress, checkpoints: CheckpointStore | None) -> None:
        active = self.selector.active
        self.step.optimizer.scale(self.selector.factors[active])
        epoch = Epoch(self.step, self.train, self.config, self.epoch)
        with own_random_numbers(self.train.device, derive_seed(self.train.seed, self.stage, self.epoch)):
            if under_way is not None:
                epoch.load(under_way.numbers["done"], under_way.numbers["samples"], under_way.part("epoch"))
                _set_random_state(under_way.part("random"), self.train.device)
            with closing(epoch.run(progress)) as steps:
                self._watch.begin()
                for _ in steps:
                    if (line := self._watch.end()) is not None:
                        progress.note(f"{self.stage}: {line}")
                    self._pause(epoch, checkpoints)
                    self._watch.begin()
        self._end_epoch(epoch, progress)
        if checkpoints is not None and self.selector.active and self.epoch <= self.config.epochs:
            (due,) = self.distribution.broadcast_metrics(self.step.network, torch.tensor(checkpoints.due))
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
        selector, members, network = self.selector, self.network.members, self.step.network
        active, measured = selector.active, epoch.measured()
        with self._averaged(epoch.number):
            loss, accuracy = evaluate(
                network, self.validation, precision=self.precision, distribution=self.distribution
            )
            agreed = self.distribution.broadcast_metrics(network, measured["train_loss"], loss, accuracy)
            stay = selector.observe(epoch.number, network, *agreed)
        if self.step.average is not None:  # it was the mean that was made the same in all processes
            self.distribution.broadcast_metrics(network)
        measured |= {"validation_loss": loss, "validation_accuracy": nan_if_diverged(accuracy, loss)}
        row: dict[str, Any] = {"stage": self.stage, "epoch": epoch.number, "seconds": round(self._seconds, 3)}
        row |= to_row(measured, active, members)
        self.rows.append(row)
        self.steps += self.train.steps
        self.epoch += 1
        progress.epoch(row)
        for n in (n for n, when in enumerate(selector.diverged) if when == epoch.number):
            progress.note(f"{self.stage}, {self.network.name(n)}: {_divergence(epoch.number, selector.best_epochs[n])}")
        self._leave(stay)

    @contextmanager
    def _averaged(self, epoch: int) -> Iterator[None]:
        """Within it the network has the mean of its parameters, if there is one, with batch norm measured anew."""
        if self.step.average is None:
            yield
            return
        with self.step.average.in_place():
            if has_running_statistics(self.step.network):
                self._measure(epoch)
            yield

    @torch.no_grad()
    def _measure(self, epoch: int) -> None:
        """Let batch norm measure on the first batches of an epoch."""
        cast(torch.nn.Module, self.step.network).train()
        with (
            own_random_numbers(self.train.device, derive_seed(self.train.seed, self.stage, "measure", epoch)),
            closing(self.train.shuffled(epoch)) as batches,
        ):
            for batch in islice(batches, batches_to_measure(self.train.steps)):
                self.step.forward(batch)

    def _leave(self, stay: Sequence[int]) -> None:
        """Go on with some of the members alone; they are those at these positions."""
        if stay and len(stay) < self.step.network.members:
            self.step = self.step.subset(stay)
            self.train, self.validation = self.train.subset(stay), self.validation.subset(stay)

    def _state(self, epoch: Epoch | None, *, finished: bool = False) -> State:
        """Return everything that the rest of the training depends on; in the middle of an epoch, or between two."""
        tensors = {f"kept/{name}": value for name, value in self.selector.kept().items()}
        if not finished:
            for n, optimizer in zip(self.selector.active, self.step.optimizer.states(), strict=True):
                state = self.step.network.member_state(self.selector.active.index(n))
                tensors |= {f"member/{n}/{name}": value for name, value in state.items()}
                tensors |= {f"optimizer/{n}/{name}": value for name, value in optimizer.items()}
            if self.step.average is not None:
                for n, means in zip(self.selector.active, self.step.average.states(), strict=True):
                    tensors |= {f"average/{n}/{name}": value for name, value in means.items()}
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
            "watch": self.selector.numbers(),
        }
        return State(tensors, numbers)

    def _load(self, state: State) -> State | None:
        """Take over a state; return it if it is from the middle of an epoch."""
        numbers = state.numbers
        self.epoch, self.rows, self.steps = numbers["epoch"], numbers["rows"], numbers["steps"]
        self._earlier_seconds, self._earlier_peak = numbers["seconds"], numbers["peak_memory_bytes"]
        self.selector.load(numbers["watch"], state.part("kept"))
        if numbers["finished"]:
            return None
        for n in self.selector.active:
            self.network.load_member_state(n, state.part(f"member/{n}"))
        self._leave(self.selector.active)
        self.step.optimizer.load_states([state.part(f"optimizer/{n}") for n in self.selector.active])
        if self.step.average is not None:
            self.step.average.load_states([state.part(f"average/{n}") for n in self.selector.active])
        return state if numbers["done"] else None

    @property
    def _seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._start

    def _history(self) -> History:
        return History(
            rows=self.rows,
            best_epochs=self.selector.best_epochs,
            diverged=self.selector.diverged,
            seconds=self._seconds,
            steps=self.steps,
            earlier_seconds=self._earlier_seconds,
            peak_memory_bytes=self._earlier_peak,
        )

    def _all_diverged(self) -> str:
        who = "" if self.network.members == 1 else f" of all {self.network.members} networks"
        advice = f"use a smaller learning rate than {self.config.peak_lr:g}"
        return f"{self.stage}: the loss{who} became NaN or infinite in epoch 1; {advice}"


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

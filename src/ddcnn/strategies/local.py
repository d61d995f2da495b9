"""Strategy "local": local CNNs without any communication, then an aggregation of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.aggregation.missing import silence
from ddcnn.config import TrainingConfig
from ddcnn.data import folds, hold_out
from ddcnn.data.batches import Batches
from ddcnn.engines import Engine, Failure, InProcess, Task, TaskPayload
from ddcnn.errors import TrainingError
from ddcnn.machine import staying_below
from ddcnn.models import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.planning.measured_choices import alone_seconds
from ddcnn.seeds import derive_seed
from ddcnn.strategies.payload import pack, unpack
from ddcnn.strategies.predict import local_probabilities
from ddcnn.strategies.problem import Problem
from ddcnn.strategies.result import StrategyResult
from ddcnn.training import (
    Checkpoints,
    History,
    Progress,
    Single,
    StageTimer,
    Workspace,
    elapsed_across_restarts,
    finished,
    fit,
)


@dataclass(frozen=True)
class LocalTask:
    """Train the local CNNs of some subdomains on some samples."""

    problem: Problem
    indices: tuple[int, ...]
    samples: Int64[Tensor, "m"]
    stage: str
    progress: Progress
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True)
class GroupResult:
    """Parameters of the local CNNs of a task, under the names of their own class, and how they came about."""

    states: list[dict[str, Tensor]]
    history: History


@dataclass(frozen=True)
class LocalResult:
    """All local CNNs, trained, and what an aggregation may learn from.

    Attributes
    ----------
    network
        The local CNNs.
    stage, history
        Time, memory, and metrics per epoch.
    samples, probabilities
        (m,) samples of the data set and (m, N, K) local probabilities for them, chosen as ``aggregate_on`` says; None
        where they are still to be computed.
    missing
        Subdomains whose local CNN could not be trained.
    known
        What was found by `of_part` already.
    """

    network: LocalCNNs
    stage: StageTimer
    history: History
    samples: Int64[Tensor, "m"]
    probabilities: Float[Tensor, "m N K"] | None
    missing: tuple[int, ...] = ()
    known: dict[str, Float[Tensor, "m N K"]] = field(default_factory=dict)

    def of_part(self, problem: Problem, part: str) -> Float[Tensor, "m N K"]:
        """Return the local probabilities of all samples of a part of the split; computed once."""
        if part not in self.known:
            self.known[part] = local_probabilities(problem, self.network, getattr(problem.split, part))
        return self.known[part]


def run_local_task(task: LocalTask) -> GroupResult:
    """Train local CNNs together: a function of the task alone."""
    problem, training = task.problem, task.problem.config.training
    network = problem.local_cnns(problem.local_modules(indices=task.indices), task.indices)
    history = fit(
        network,
        problem.batches(task.samples, "order", network.subdomains, augment=True),
        problem.batches(problem.split.validation, "order", network.subdomains),
        training,
        classes=problem.classes,
        stage=task.stage,
        own=[training.of(index) for index in task.indices],
        precision=problem.precision,
        progress=task.progress,
        checkpoints=task.checkpoints,
    )
    states = [{k: v.cpu().clone() for k, v in network.member_state(n).items()} for n in range(network.members)]
    return GroupResult(states, history)


def train_local(
    problem: Problem, engine: Engine, progress: Progress, workspace: Workspace | None = None
) -> LocalResult:
    """Train all local CNNs on the samples that ``aggregate_on`` leaves to them.

    ``train``: all. ``holdout``: all but a part, from which the aggregation learns. ``crossfit``: all, and once more
    for each fold without it, so that the aggregation learns from probabilities of samples unseen by their local CNNs.
    """
    config, labels = problem.config.aggregation, problem.dataset.labels
    seed = derive_seed(problem.config.seed, "aggregate_on")
    train = problem.split.train
    held: list[Tensor] = []
    if config.aggregate_on == "holdout":
        train, part = hold_out(train, labels, config.holdout_fraction, seed)
        held = [part]
    elif config.aggregate_on == "crossfit":
        held = folds(train, labels, config.folds, seed)
    in_turn = workspace is None or isinstance(engine, InProcess)  # then the checkpoints tell the time, too
    clock = None if workspace is None or in_turn else workspace.folder / "local.seconds"
    with StageTimer("local", problem.device) as stage, elapsed_across_restarts(clock) as earlier:
        network, history, missing = _train_all(problem, engine, train, "local", progress, workspace)
        histories, probabilities = [history], []
        if config.aggregate_on == "crossfit":
            for number, fold in enumerate(held):
                rest = train[~torch.isin(train, fold)]
                name = f"local/fold{number}"
                other, fold_history, gone = _train_all(problem, engine, rest, name, progress, workspace)
                missing = tuple(sorted({*missing, *gone}))
                histories.append(fold_history)
                probabilities.append(local_probabilities(problem, other, fold))
        for one in histories:
            stage.add(one.earlier_seconds if in_turn else 0.0, one.peak_memory_bytes)
        stage.add(earlier, None)
    stage.epochs = sum(h.epochs for h in histories)
    seconds = max(alone_seconds(problem, network, n) for n in _largest(network))
    stage.critical_path_seconds = seconds * sum(h.steps for h in histories)
    samples = torch.cat(held) if held else train
    history = replace(history, rows=[row for h in histories for row in h.rows], seconds=stage.seconds)
    return LocalResult(network, stage, history, samples, torch.cat(probabilities) if probabilities else None, missing)


def aggregate(
    problem: Problem, local: LocalResult, name: str, progress: Progress, workspace: Workspace | None = None
) -> StrategyResult:
    """Put an aggregation on trained local CNNs; a dense network is trained first."""
    aggregation = problem.aggregation(name)
    network = CNNDNN(
        problem.decomposition,
        local.network,
        aggregation,
        normalization=problem.normalization,
        missing=local.missing,
    )
    if not list(aggregation.parameters()):
        return StrategyResult(network, [local.stage], {})
    with StageTimer("dnn", problem.device) as stage:
        inputs = {"missing": list(local.missing)}
        checkpoints = None if workspace is None else workspace.of("dnn", inputs)
        history = _train_dnn(problem, local, network, progress, checkpoints)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.critical_path_seconds = stage.seconds
    return StrategyResult(network, [local.stage, stage], {"dnn": history})


def _train_dnn(
    problem: Problem, local: LocalResult, network: CNNDNN, progress: Progress, checkpoints: Checkpoints | None
) -> History:
    config = problem.config.aggregation
    learned = local.probabilities
    if learned is None:
        if config.aggregate_on == "train":
            learned = local.of_part(problem, "train")
        else:
            learned = local_probabilities(problem, local.network, local.samples)
    validation = local.of_part(problem, "validation")
    inputs = silence(torch.cat([learned, validation]).to(problem.device), local.missing)
    labels = problem.labels[torch.cat([local.samples, problem.split.validation]).to(problem.device)]
    seed = derive_seed(problem.config.seed, "dnn", "order")
    index = torch.arange(len(inputs))
    balanced = problem.config.training.sampling == "balanced"
    training = TrainingConfig(
        optimizer="adamw",
        lr=config.lr,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
        batch_size=config.batch_size,
        schedule="onecycle",
        class_weights=problem.config.training.class_weights,
    )
    return fit(
        Single(network.aggregation),
        Batches(inputs, labels, index[: len(learned)], config.batch_size, seed, balanced=balanced),
        Batches(inputs, labels, index[len(learned) :], config.batch_size, seed),
        training,
        classes=problem.classes,
        stage="dnn",
        progress=progress,
        checkpoints=checkpoints,
    )


def train_elsewhere(
    parcel: TaskPayload, arguments: dict[str, Any], checkpoints: Checkpoints, progress: Progress, device: str
) -> None:
    """Train local CNNs in another process; what `run_local_task` returns is the last of the checkpoints."""
    problem = unpack(parcel, device)
    samples = torch.tensor(arguments["samples"])
    indices, stage = tuple(arguments["indices"]), arguments["stage"]
    with staying_below(problem.limit):
        run_local_task(LocalTask(problem, indices, samples, stage, progress, checkpoints))


def _train_all(
    problem: Problem, engine: Engine, samples: Tensor, stage: str, progress: Progress, workspace: Workspace | None
) -> tuple[LocalCNNs, History, tuple[int, ...]]:
    """Train all local CNNs; those of a group that fails are tried again one by one.

    Returns
    -------
    network, history, missing
        ``missing`` are the subdomains whose local CNN could not be trained.
    """
    groups = problem.groups
    names = [stage] if len(groups) == 1 else [f"{stage}/subdomains {_span(group)}" for group in groups]

    def run(groups: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[GroupResult | Failure]:
        tasks = [_task(problem, g, samples, name, workspace) for g, name in zip(groups, names, strict=True)]
        return engine.run(tasks, progress, None if workspace is None else workspace.folder)

    found = dict(zip(groups, run(groups, names), strict=True))
    failed = {group: one for group, one in found.items() if isinstance(one, Failure)}
    for failure in failed.values():
        progress.note(f"{failure.name} failed: {failure.reason}")
    again = [(index,) for group, one in failed.items() if len(group) > 1 and not one.final for index in group]
    if again:
        found |= dict(zip(again, run(again, [f"{stage}/subdomain {index}" for (index,) in again]), strict=True))
    results = {group: one for group, one in found.items() if isinstance(one, GroupResult)}
    if not results:
        raise TrainingError(next(iter(failed.values())).reason)
    return _assembled(problem, results, progress)


def _assembled(
    problem: Problem, results: dict[tuple[int, ...], GroupResult], progress: Progress
) -> tuple[LocalCNNs, History, tuple[int, ...]]:
    network = problem.local_cnns(problem.local_modules())
    missing = tuple(n for n in range(network.members) if not any(n in group for group in results))
    for group, result in results.items():
        for n, state in zip(group, result.states, strict=True):
            network.load_member_state(n, state)
    for n in missing:
        progress.note(f"{network.name(n)} is missing: the decision is made without it")
    return network, _joined(results, network.members), missing


def _task(
    problem: Problem, group: tuple[int, ...], samples: Tensor, name: str, workspace: Workspace | None
) -> Task[GroupResult]:
    arguments = {"indices": list(group), "samples": samples.tolist(), "stage": name}
    checkpoints = None if workspace is None else workspace.of(name, arguments)

    def data(least: bool) -> TaskPayload:
        every = problem.decomposition.subdomains(problem.dataset.image_size)
        return pack(problem, tuple(every[i] for i in group) if least else None)

    return Task(
        name,
        here=lambda progress: run_local_task(LocalTask(problem, group, samples, name, progress, checkpoints)),
        function="ddcnn.strategies.local:train_elsewhere",
        arguments=arguments,
        data=data,
        checkpoints=checkpoints,
        collect=lambda: None if checkpoints is None else _collected(checkpoints),
    )


def _collected(checkpoints: Checkpoints) -> GroupResult | None:
    found = finished(checkpoints)
    return None if found is None else GroupResult(*found)


def _span(group: Sequence[int]) -> str:
    return f"{group[0]}-{group[-1]}"


def _joined(results: dict[tuple[int, ...], GroupResult], members: int) -> History:
    """Return the history of groups that were trained one by one, as if they had been trained as one."""
    histories = [one.history for _, one in sorted(results.items())]
    best: list[int] = [0] * members
    diverged: list[int | None] = [None] * members
    for group, one in results.items():
        for place, n in enumerate(group):
            best[n], diverged[n] = one.history.best_epochs[place], one.history.diverged[place]
    return History(
        rows=[row for h in histories for row in h.rows],
        best_epochs=best,
        diverged=diverged,
        seconds=sum(h.seconds for h in histories),
        steps=max(h.steps for h in histories),
        earlier_seconds=sum(h.earlier_seconds for h in histories),
        peak_memory_bytes=max((h.peak_memory_bytes or 0 for h in histories), default=0) or None,
    )


def _largest(network: LocalCNNs) -> list[int]:
    """Return one subdomain of each shape."""
    return list({subdomain.shape: n for n, subdomain in enumerate(network.subdomains)}.values())

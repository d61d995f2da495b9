"""Strategy "local": local CNNs without any communication, then an aggregation of their probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.data import folds, hold_out
from ddcnn.data.batches import Batches
from ddcnn.engines import Engine
from ddcnn.fusion import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.seeds import derive_seed
from ddcnn.strategies.choices import alone_seconds
from ddcnn.strategies.predict import local_probabilities
from ddcnn.strategies.problem import Problem
from ddcnn.strategies.trained import Trained
from ddcnn.training import History, Progress, Single, Stage, fit


@dataclass(frozen=True)
class LocalTask:
    """Train the local CNNs of some subdomains on some samples."""

    problem: Problem
    indices: tuple[int, ...]
    samples: Int64[Tensor, "m"]
    stage: str
    progress: Progress


@dataclass(frozen=True)
class LocalResult:
    """Parameters of the local CNNs of a task, under the names of their own class, and how they came about."""

    states: list[dict[str, Tensor]]
    history: History


@dataclass(frozen=True)
class Local:
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
    """

    network: LocalCNNs
    stage: Stage
    history: History
    samples: Int64[Tensor, "m"]
    probabilities: Float[Tensor, "m N K"] | None


def run_local_task(task: LocalTask) -> LocalResult:
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
    )
    states = [{k: v.cpu().clone() for k, v in network.member_state(n).items()} for n in range(network.members)]
    return LocalResult(states, history)


def train_local(problem: Problem, engine: Engine, progress: Progress) -> Local:
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
    with Stage("local", problem.device) as stage:
        network, history = _train_all(problem, engine, train, "local", progress)
        histories, probabilities = [history], []
        if config.aggregate_on == "crossfit":
            for number, fold in enumerate(held):
                rest = train[~torch.isin(train, fold)]
                other, fold_history = _train_all(problem, engine, rest, f"local/fold{number}", progress)
                histories.append(fold_history)
                probabilities.append(local_probabilities(problem, other, fold))
    stage.epochs = sum(h.epochs for h in histories)
    seconds = max(alone_seconds(problem, network, n) for n in _largest(network))
    stage.critical_path_seconds = seconds * sum(h.steps for h in histories)
    samples = torch.cat(held) if held else train
    history = replace(history, rows=[row for h in histories for row in h.rows], seconds=stage.seconds)
    return Local(network, stage, history, samples, torch.cat(probabilities) if probabilities else None)


def aggregate(problem: Problem, local: Local, name: str, progress: Progress) -> Trained:
    """Put an aggregation on trained local CNNs; a dense network is trained first."""
    aggregation = problem.aggregation(name)
    network = CNNDNN(problem.decomposition, local.network, aggregation, normalization=problem.normalization)
    if not list(aggregation.parameters()):
        return Trained(network, [local.stage], {})
    with Stage("dnn", problem.device) as stage:
        history = _train_dnn(problem, local, network, progress)
    stage.critical_path_seconds = stage.seconds
    return Trained(network, [local.stage, stage], {"dnn": history})


def _train_dnn(problem: Problem, local: Local, network: CNNDNN, progress: Progress) -> History:
    config = problem.config.aggregation
    learned = local.probabilities
    if learned is None:
        learned = local_probabilities(problem, local.network, local.samples)
    validation = local_probabilities(problem, local.network, problem.split.validation)
    inputs = torch.cat([learned, validation]).to(problem.device)
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
    )


def _train_all(
    problem: Problem, engine: Engine, samples: Tensor, stage: str, progress: Progress
) -> tuple[LocalCNNs, History]:
    groups = problem.groups
    names = [stage] if len(groups) == 1 else [f"{stage}/subdomains {group[0]}-{group[-1]}" for group in groups]
    tasks = [LocalTask(problem, group, samples, name, progress) for group, name in zip(groups, names, strict=True)]
    results = engine.run(run_local_task, tasks)
    network = problem.local_cnns(problem.local_modules())
    for n, state in enumerate(state for result in results for state in result.states):
        network.load_member_state(n, state)
    return network, _joined([result.history for result in results])


def _joined(histories: list[History]) -> History:
    """Return the history of groups that were trained in turn, as if they had been trained side by side."""
    return History(
        rows=[row for h in histories for row in h.rows],
        best_epochs=[best for h in histories for best in h.best_epochs],
        diverged=[when for h in histories for when in h.diverged],
        seconds=sum(h.seconds for h in histories),
        steps=max(h.steps for h in histories),
    )


def _largest(network: LocalCNNs) -> list[int]:
    """Return one subdomain of each shape."""
    return list({subdomain.shape: n for n, subdomain in enumerate(network.subdomains)}.values())

"""Strategy "local": local CNNs without any communication, then an aggregation of what they hand over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ddcnn.aggregation import AGGREGATIONS, LocalOutputs
from ddcnn.data import folds, hold_out
from ddcnn.engines import Failure, Task
from ddcnn.errors import TrainingError
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup, Work, seconds_alone
from ddcnn.seeds import derive_seed
from ddcnn.strategies.calibration import calibrate_decision, calibrate_local
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.local_task import GroupResult, LocalInputs, collect_group, group_work, joined, train_group
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.strategies.train_aggregation import aggregation_work, train_aggregation
from ddcnn.training import History, StageTimer, elapsed_across_restarts


@dataclass(frozen=True)
class LocalResult:
    """All local CNNs, trained, and what an aggregation may learn from.

    Attributes
    ----------
    stage, history
        Time, memory, and metrics per epoch.
    probabilities
        What the local CNNs say of each part of the data.
    samples, unseen
        (m,) samples of the data set from which an aggregation learns, chosen as ``aggregate_on`` says, and what local
        CNNs that did not see them say of them; None: those of ``probabilities``.
    missing
        Subdomains whose local CNN could not be trained.
    """

    stage: StageTimer
    history: History
    probabilities: LocalProbabilities
    samples: Tensor
    unseen: LocalOutputs | None = None
    missing: tuple[int, ...] = ()

    @property
    def network(self) -> LocalCNNs:
        """The local CNNs."""
        return self.probabilities.local_cnns

    def learned_from(self) -> LocalOutputs:
        """Return what is said of `samples`."""
        if self.unseen is not None:
            return self.unseen
        split = self.probabilities.setup.data.split
        if self.samples is split.train:
            return self.probabilities.outputs("train")
        return self.probabilities.outputs_of_samples(self.samples)


@dataclass
class _Trainings:
    """The trainings of all local CNNs, one after the other, and what came of them."""

    context: StrategyContext
    histories: list[History] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)

    def train(self, samples: Tensor, stage: str) -> LocalCNNs:
        """Train all local CNNs on some samples; those of a group that fails are tried again one by one."""
        network, history, missing = _train_all(self.context, samples, stage)
        self.histories.append(history)
        self.missing |= set(missing)
        return network


def train_local(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train local CNNs, then put each of the aggregations on them; one with parameters is trained first."""
    local = train_local_cnns(context)
    return {AGGREGATIONS.find(name).result: aggregate(context, local, name) for name in context.aggregations}


def train_local_cnns(context: StrategyContext) -> LocalResult:
    """Train all local CNNs on the samples that ``aggregate_on`` leaves to them.

    ``train``: all. ``holdout``: all but a part, from which the aggregation learns. ``crossfit``: all, and once more
    for each fold without it, so that the aggregation learns from probabilities of samples unseen by their local CNNs.
    """
    setup, workspace = context.setup, context.workspace
    config, labels, groups = setup.config.aggregation, setup.data.dataset.labels, setup.data.dataset.groups
    seed = derive_seed(setup.config.seed, "aggregate_on")
    train = samples = setup.data.split.train
    trainings, unseen = _Trainings(context), None
    in_turn = workspace is None or context.engine.serial  # then the checkpoints tell the time, too
    clock = None if workspace is None or in_turn else workspace.folder / "local.seconds"
    with StageTimer("local", setup.compute.device) as stage, elapsed_across_restarts(clock) as earlier:
        if config.aggregate_on == "holdout":
            train, samples = hold_out(train, labels, config.holdout_fraction, seed, groups)
        network = trainings.train(train, "local")
        if config.aggregate_on == "crossfit":
            held = folds(train, labels, config.folds, seed, groups)
            samples, found = torch.cat(held), []
            for number, fold in enumerate(held):
                other = trainings.train(train[~torch.isin(train, fold)], f"local/fold{number}")
                found.append(LocalProbabilities(setup, other).outputs_of_samples(fold))
            unseen = LocalOutputs.joined(found)
        for history in trainings.histories:
            stage.add(history.earlier_seconds if in_turn else 0.0, history.peak_memory_bytes)
        stage.add(earlier, None)
    stage.epochs = sum(h.epochs for h in trainings.histories)
    one_of_each_shape = {(s.shape, s.added_channels): n for n, s in enumerate(network.subdomains)}.values()
    alone = max(seconds_alone(setup.data, setup.networks, setup.compute, network, n) for n in one_of_each_shape)
    stage.critical_path_seconds = alone * sum(h.steps for h in trainings.histories)
    rows = [row for h in trainings.histories for row in h.rows]
    history = replace(trainings.histories[0], rows=rows, seconds=stage.seconds)
    probabilities = LocalProbabilities(setup, network, features=setup.networks.feature_widths is not None)
    return LocalResult(stage, history, probabilities, samples, unseen, tuple(sorted(trainings.missing)))


def aggregate(context: StrategyContext, local: LocalResult, name: str) -> StrategyResult:
    """Put an aggregation on trained local CNNs."""
    setup = context.setup
    aggregation = setup.networks.aggregation(name)
    network = setup.networks.network(local.network, aggregation, local.missing)
    stages, histories = [local.stage], {"local": local.history}
    calibrate_local(network, local.probabilities)
    trained = train_aggregation(context, name, network, local)
    if trained is not None:
        stage, histories["dnn"] = trained
        stages.append(stage)
    calibrate_decision(network, local.probabilities)
    return StrategyResult(network, stages, histories, local.probabilities, name, shares_local_cnns=True)


def _train_all(context: StrategyContext, samples: Tensor, stage: str) -> tuple[LocalCNNs, History, tuple[int, ...]]:
    """Return all local CNNs, how they were trained, and the subdomains whose local CNN could not be trained."""
    setup, progress, workspace = context.setup, context.progress, context.workspace
    groups = setup.compute.groups(setup.owned)
    names = [stage] if len(groups) == 1 else [f"{stage}/subdomains {group[0]}-{group[-1]}" for group in groups]

    def run(groups: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[GroupResult | Failure]:
        tasks = [_task(context, group, samples, name) for group, name in zip(groups, names, strict=True)]
        return context.engine.run(tasks, progress, None if workspace is None else workspace.folder)

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
    network = setup.networks.local_cnns(backend=setup.compute.backend)
    for group, result in results.items():
        for n, state in zip(group, result.states, strict=True):
            network.load_member_state(n, state)
    missing = tuple(n for n in range(network.members) if not any(n in group for group in results))
    for n in missing:
        progress.note(f"{network.name(n)} is missing: the decision is made without it")
    return network, joined(results, network.members), missing


def _task(context: StrategyContext, group: tuple[int, ...], samples: Tensor, name: str) -> Task[GroupResult]:
    arguments = {"indices": list(group), "samples": samples.tolist(), "stage": name}
    checkpoints = context.checkpoints(name, arguments)
    return Task(name, train_group, LocalInputs(context.setup), arguments, checkpoints, collect_group)


def local_works(setup: Setup, aggregations: Sequence[str]) -> list[Work]:
    """Describe the trainings of the local CNNs, and of the aggregations that learn by steps."""
    config, data = setup.config.aggregation, setup.data
    seed = derive_seed(setup.config.seed, "aggregate_on")
    train = learned = data.split.train
    labels, groups = data.dataset.labels, data.dataset.groups
    if config.aggregate_on == "holdout":
        train, learned = hold_out(train, labels, config.holdout_fraction, seed, groups)
    works = _group_works(setup, train)
    if config.aggregate_on == "crossfit":
        for fold in folds(train, labels, config.folds, seed, groups):
            works += _group_works(setup, train[~torch.isin(train, fold)])
    first = len(learned) + len(data.split.validation)
    for name in aggregations:
        work = aggregation_work(setup, name, learned)
        if work is not None:
            works.append(replace(work, looked_at=first))
            first = 0  # what was said is kept
    return works


def _group_works(setup: Setup, samples: Tensor) -> list[Work]:
    """Describe the trainings of all groups; those of equal shapes once, with their number."""
    alike: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
    for group in setup.compute.groups(setup.owned):
        views = [setup.networks.subdomains[n] for n in group]
        alike.setdefault(tuple(sorted((s.shape, s.added_channels) for s in views)), []).append(group)
    return [
        replace(group_work(setup, groups[0], samples, "local"), times=len(groups), alike=("local", shapes))
        for shapes, groups in alike.items()
    ]


LOCAL = Strategy(
    train_local,
    "local",
    "The local CNNs are trained one by one, without communication; an aggregation of what they say decides.",
    stages={"local": "local CNNs", "dnn": "DNN"},
    trains="subdomains",
    works=local_works,
)

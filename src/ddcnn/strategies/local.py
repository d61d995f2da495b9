"""Strategy "local": local CNNs without any communication, then an aggregation of what they hand over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ddcnn.aggregation import AGGREGATIONS, LocalOutputs
from ddcnn.data import folds, hold_out
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup, Work, seconds_alone
from ddcnn.seeds import derive_seed
from ddcnn.strategies.calibration import calibrate_decision, calibrate_local
from ddcnn.strategies.initialization import Start, Trained, start_of
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.local_task import group_work, group_works
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.strategies.train_aggregation import aggregation_work, train_aggregation
from ddcnn.strategies.train_groups import train_groups
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
    start
        Where they began.
    """

    stage: StageTimer
    history: History
    probabilities: LocalProbabilities
    samples: Tensor
    unseen: LocalOutputs | None = None
    missing: tuple[int, ...] = ()
    start: Start = field(default_factory=Start)

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
    start: Start
    histories: list[History] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)

    def train(self, samples: Tensor, stage: str) -> LocalCNNs:
        """Train all local CNNs on some samples; those of a group that fails are tried again one by one."""
        network, history, missing = train_groups(self.context, samples, stage, start=self.start)
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
    config, dataset = setup.config.aggregation, setup.data.dataset
    labels, groups, names = dataset.labels, dataset.groups, dataset.classes
    seed = derive_seed(setup.config.seed, "aggregate_on")
    train = samples = setup.data.split.train
    start = start_of(context)
    if start.trained is not None:
        return _trained_before(setup, start, start.trained)
    trainings, unseen = _Trainings(context, start), None
    in_turn = workspace is None or context.engine.serial  # then the checkpoints tell the time, too
    clock = None if workspace is None or in_turn else workspace.folder / "local.seconds"
    with StageTimer("local", setup.compute.device) as stage, elapsed_across_restarts(clock) as earlier:
        if config.aggregate_on == "holdout":
            train, samples = hold_out(train, labels, config.holdout_fraction, seed, groups, names)
        network = trainings.train(train, "local")
        if config.aggregate_on == "crossfit":
            held = folds(train, labels, config.folds, seed, groups, names)
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
    steps = sum(h.steps for h in trainings.histories)
    alone = max(seconds_alone(setup.data, setup.networks, setup.compute, network, n, steps) for n in one_of_each_shape)
    stage.critical_path_seconds = alone * steps
    rows = [row for h in trainings.histories for row in h.rows]
    history = replace(trainings.histories[0], rows=rows, seconds=stage.seconds)
    probabilities = LocalProbabilities(setup, network, features=setup.networks.feature_widths is not None)
    return LocalResult(stage, history, probabilities, samples, unseen, tuple(sorted(trainings.missing)), start)


def _trained_before(setup: Setup, start: Start, trained: Trained) -> LocalResult:
    network = setup.networks.local_cnns(backend=setup.compute.backend)
    for n, state in trained.states.items():
        network.load_member_state(n, dict(state))
    missing = tuple(n for n in range(network.members) if n not in trained.states)
    probabilities = LocalProbabilities(setup, network, features=setup.networks.feature_widths is not None)
    samples = setup.data.split.train
    return LocalResult(trained.stage, trained.history, probabilities, samples, missing=missing, start=start)


def aggregate(context: StrategyContext, local: LocalResult, name: str) -> StrategyResult:
    """Put an aggregation on trained local CNNs."""
    setup = context.setup
    aggregation = setup.networks.aggregation(name)
    network = setup.networks.network(local.network, aggregation, local.missing)
    stages, histories = [*local.start.stages, local.stage], {**local.start.histories, "local": local.history}
    calibrate_local(network, local.probabilities)
    trained = train_aggregation(context, name, network, local)
    if trained is not None:
        stage, histories["dnn"] = trained
        stages.append(stage)
    calibrate_decision(network, local.probabilities)
    return StrategyResult(network, stages, histories, local.probabilities, name, shares_local_cnns=True)


def local_works(setup: Setup, aggregations: Sequence[str]) -> list[Work]:
    """Describe the trainings of the local CNNs, and of the aggregations that learn by steps."""
    config, data = setup.config.aggregation, setup.data
    seed = derive_seed(setup.config.seed, "aggregate_on")
    train = learned = data.split.train
    labels, groups, names = data.dataset.labels, data.dataset.groups, data.dataset.classes
    if config.aggregate_on == "holdout":
        train, learned = hold_out(train, labels, config.holdout_fraction, seed, groups, names)
    works = []
    if setup.config.init.way != "trained":
        works = group_works(setup, "local", partial(group_work, setup, samples=train, stage="local"))
    if config.aggregate_on == "crossfit":
        for fold in folds(train, labels, config.folds, seed, groups, names):
            other = train[~torch.isin(train, fold)]
            works += group_works(setup, "local", partial(group_work, setup, samples=other, stage="local"))
    first = len(learned) + len(data.split.validation)
    for name in aggregations:
        work = aggregation_work(setup, name, learned)
        if work is not None:
            works.append(replace(work, looked_at=first))
            first = 0  # what was said is kept
    return works


LOCAL = Strategy(
    train_local,
    "local",
    "The local CNNs are trained one by one, without communication; an aggregation of what they say decides.",
    stages={"local": "local CNNs", "dnn": "DNN"},
    trains="subdomains",
    works=local_works,
)

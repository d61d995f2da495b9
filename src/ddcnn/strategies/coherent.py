"""Strategy "coherent": the whole CNN-DNN trained as one model, from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.engines import RankCheckpoints, RankDistribution
from ddcnn.models import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.planning import Setup, Work
from ddcnn.strategies.calibration import calibrate_decision
from ddcnn.strategies.initialization import start_of
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.training import (
    Checkpoints,
    CheckpointStore,
    Distribution,
    FadingLocalLosses,
    Objective,
    StageTimer,
    WholeNetwork,
    cross_entropy_of,
)


def train_coherent(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train local CNNs and aggregation as one model, from where "local" begins, too: by default, random parameters.

    At the start the global loss hardly reaches the local CNNs, N of which share it. Losses of their own lead them to
    where "transfer" would start from, and fade out (deep supervision, Lee et al. 2015); with ``coherent.local_weight``
    0 there are none, as published.
    """
    setup, start = context.setup, start_of(context)
    local_cnns = setup.networks.local_cnns(setup.owned, backend=setup.compute.backend)
    start.put(local_cnns, setup.owned)
    aggregation = setup.networks.aggregation(setup.config.aggregation.name)
    weight = setup.config.coherent.local_weight
    result = train_whole(
        context,
        local_cnns,
        aggregation,
        setup.data.training if start.local else setup.data.training.from_random(),
        "coherent",
        context.checkpoints("coherent", start.about),
        objective=_objective(setup),
        with_local_scores=bool(weight),
    )
    stages, histories = [*start.stages, *result.stages], {**start.histories, **result.histories}
    return {"coherent": replace(result, stages=stages, histories=histories)}


def coherent_works(setup: Setup, _aggregations: Sequence[str] = ()) -> list[Work]:
    """Describe the one training."""
    with_local_scores = bool(setup.config.coherent.local_weight)
    training, objective = setup.data.training, _objective(setup)
    if setup.config.init.at_random:
        training = training.from_random()
    return [whole_work(setup, "coherent", training, objective=objective, with_local_scores=with_local_scores)]


def whole_work(
    setup: Setup,
    stage: str,
    training: TrainingConfig,
    *,
    objective: Objective | None = None,
    with_local_scores: bool = False,
    extras: Mapping[str, Tensor] | None = None,
) -> Work:
    """Describe a training of local CNNs and their aggregation as one model; see `train_whole`."""
    data, networks, ranks = setup.data, setup.networks, setup.ranks
    subdomains = [networks.subdomains[n] for n in setup.owned]
    part = (ranks.replica, ranks.replicas)

    def build() -> WholeNetwork:
        local_cnns = networks.local_cnns(setup.owned, backend=setup.compute.backend)
        aggregation = networks.aggregation(setup.config.aggregation.name)
        return WholeNetwork(networks.network(local_cnns, aggregation), with_local_scores=with_local_scores)

    return Work(
        stage,
        build,
        data.batches(data.split.train, subdomains, augment=True, extras=extras, part=part),
        data.batches(data.split.validation, subdomains, part=part),
        training,
        data.classes,
        precision=setup.compute.precision,
        graphs=setup.compute.graphs,
        objective=objective,
        alike="whole",
        exchanged=sum(networks.feature_widths or [data.classes] * len(networks.subdomains)),
    )


def _objective(setup: Setup) -> Objective:
    data, weight = setup.data, setup.config.coherent.local_weight
    cross_entropy = cross_entropy_of(data.training, data.labels[data.split.train.to(data.device)], data.classes)
    return FadingLocalLosses(weight, cross_entropy) if weight else cross_entropy


def train_whole(
    context: StrategyContext,
    local_cnns: LocalCNNs,
    aggregation: nn.Module,
    training: TrainingConfig,
    name: str,
    checkpoints: Checkpoints | None,
    *,
    objective: Objective | None = None,
    with_local_scores: bool = False,
    extras: Mapping[str, Tensor] | None = None,
) -> StrategyResult:
    """Train local CNNs and an aggregation on as one model, in place.

    Parameters
    ----------
    objective
        What is minimised; None: the cross-entropy of the global decision.
    with_local_scores
        Whether the objective sees the scores of the local CNNs as well, behind the global ones.
    extras
        What is known of all samples beside their labels, by name, (n, ...): a batch has those of its samples.
    """
    setup, ranks = context.setup, context.setup.ranks
    network = setup.networks.network(local_cnns, aggregation)
    whole = WholeNetwork(network, with_local_scores=with_local_scores)
    work = whole_work(setup, name, training, objective=objective, extras=extras)
    distribution = Distribution()
    store: CheckpointStore | None = checkpoints
    if not ranks.alone:
        distribution = ranked = RankDistribution(ranks, len(setup.networks.decomposition))
        store = None if checkpoints is None else RankCheckpoints(ranks, checkpoints, ranked.randomness)
    with StageTimer(name, setup.compute.device) as stage:
        history = work.fit(whole, distribution=distribution, progress=context.progress, checkpoints=store)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    network = _of_all_ranks(setup, network)
    probabilities = LocalProbabilities(
        setup, network.local_cnns, features=network.handed is not None and not network.handed.by_class
    )
    calibrate_decision(network, probabilities)
    return StrategyResult(network, [stage], {name: history}, probabilities, setup.config.aggregation.name)


def _of_all_ranks(setup: Setup, network: CNNDNN) -> CNNDNN:
    """Return the network with the local CNNs of all ranks, on each of them."""
    if setup.ranks.alone:
        return network
    local_cnns = setup.networks.local_cnns(backend=setup.compute.backend)
    whole = setup.networks.network(local_cnns, network.aggregation)
    whole.load_unfused_state(setup.ranks.union(network.unfused_state()))
    return whole


COHERENT = Strategy(
    train_coherent,
    "coherent",
    "Local CNNs and DNN are trained from scratch as one model, all at the same time.",
    stages={"coherent": "coherent"},
    over_ranks=True,
    works=coherent_works,
)

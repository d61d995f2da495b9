"""Strategy "global": one CNN on the whole image, the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddcnn.config import TrainingConfig
from ddcnn.models import LocalCNNs
from ddcnn.strategies.calibration import calibrate_decision
from ddcnn.strategies.initialization import start_of
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.training import StageTimer, fit
from ddcnn.training.closed_form import is_solvable, solve


def train_global(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train the global CNN; as a `CNNDNN` with one subdomain, whose average is its own probability."""
    setup, start = context.setup, start_of(context)
    network = setup.networks.global_cnn()
    if start.whole is None:
        training = setup.data.training.from_random()
        return {"global": train_on_whole_images(context, network, training, "global")}
    network.load_member_state(0, dict(start.whole))
    return {"global": train_on_whole_images(context, network, setup.data.training, "global", start.about)}


def train_on_whole_images(
    context: StrategyContext,
    network: LocalCNNs,
    training: TrainingConfig,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> StrategyResult:
    """Train a global CNN in place; ``about`` is what it depends on beside the setup, as JSON takes it."""
    setup, data = context.setup, context.setup.data
    train = data.batches(data.split.train, network.subdomains, augment=True)
    validation = data.batches(data.split.validation, network.subdomains)
    checkpoints, progress = context.checkpoints(name, about), context.progress
    with StageTimer(name, setup.compute.device) as stage:
        if is_solvable(network):
            history = solve(network, train, validation, stage=name, progress=progress, checkpoints=checkpoints)
        else:
            history = fit(
                network,
                train,
                validation,
                training,
                classes=data.classes,
                stage=name,
                precision=setup.compute.precision,
                progress=progress,
                checkpoints=checkpoints,
            )
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    whole = setup.networks.global_network(network)
    probabilities = LocalProbabilities(setup, network)
    calibrate_decision(whole, probabilities)
    return StrategyResult(whole, [stage], {name: history}, probabilities, "average", whole_image=True)


GLOBAL = Strategy(
    train_global,
    "global CNN",
    "One network looks at the whole image. This is the baseline.",
    stages={"global": "global CNN"},
    trains="global",
)

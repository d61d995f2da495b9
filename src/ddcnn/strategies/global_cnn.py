"""Strategy "global": one CNN on the whole image, the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddcnn.config import TrainingConfig
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup, Work
from ddcnn.strategies.calibration import calibrate_decision
from ddcnn.strategies.initialization import start_of
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.training import StageTimer
from ddcnn.training.closed_form import Solvable


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
    setup, checkpoints = context.setup, context.checkpoints(name, about)
    work = whole_images_work(setup, name, training)
    with StageTimer(name, setup.compute.device) as stage:
        history = work.fit(network, progress=context.progress, checkpoints=checkpoints)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    whole = setup.networks.global_network(network)
    probabilities = LocalProbabilities(setup, network)
    calibrate_decision(whole, probabilities)
    return StrategyResult(whole, [stage], {name: history}, probabilities, "average", whole_image=True)


def global_works(setup: Setup, _aggregations: Sequence[str] = ()) -> list[Work]:
    """Describe the one training."""
    training = setup.data.training
    return [whole_images_work(setup, "global", training.from_random() if setup.config.init.at_random else training)]


def whole_images_work(setup: Setup, stage: str, training: TrainingConfig) -> Work:
    """Describe a training of the global CNN."""
    data, networks = setup.data, setup.networks
    subdomains = networks.whole_image.subdomains(networks.image_size)
    return Work(
        stage,
        networks.global_cnn,
        data.batches(data.split.train, subdomains, augment=True),
        data.batches(data.split.validation, subdomains),
        training,
        data.classes,
        precision=setup.compute.precision,
        graphs=setup.compute.graphs,
        solved=isinstance(networks.global_module(), Solvable),
    )


GLOBAL = Strategy(
    train_global,
    "global CNN",
    "One network looks at the whole image. This is the baseline.",
    stages={"global": "global CNN"},
    trains="global",
    works=global_works,
)

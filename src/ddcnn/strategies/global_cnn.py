"""Strategy "global": one CNN on the whole image, the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.planning import Setup, Work
from ddcnn.strategies.calibration import calibrate_decision
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.training import StageTimer


def train_global(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train the global CNN; as a `CNNDNN` with one subdomain, whose average is its own probability."""
    setup = context.setup
    (work,) = global_works(setup)
    network = setup.networks.global_cnn()
    with StageTimer("global", setup.compute.device) as stage:
        history = work.fit(network, progress=context.progress, checkpoints=context.checkpoints("global"))
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    whole = setup.networks.global_network(network)
    probabilities = LocalProbabilities(setup, network)
    calibrate_decision(whole, probabilities)
    return {"global": StrategyResult(whole, [stage], {"global": history}, probabilities, "average")}


def global_works(setup: Setup, _aggregations: Sequence[str] = ()) -> list[Work]:
    """Describe the one training."""
    data, networks = setup.data, setup.networks
    subdomains = networks.whole_image.subdomains(networks.image_size)
    work = Work(
        "global",
        networks.global_cnn,
        data.batches(data.split.train, subdomains, augment=True),
        data.batches(data.split.validation, subdomains),
        data.training,
        data.classes,
        precision=setup.compute.precision,
    )
    return [work]


GLOBAL = Strategy(
    train_global,
    "global CNN",
    "One network looks at the whole image. This is the baseline.",
    stages={"global": "global CNN"},
    trains="global",
    works=global_works,
)

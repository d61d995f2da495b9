"""Strategy "global": one CNN on the whole image, the baseline."""

from __future__ import annotations

from ddcnn.strategies.calibration import calibrate_decision
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.training import StageTimer, fit


def train_global(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train the global CNN; as a `CNNDNN` with one subdomain, whose average is its own probability."""
    setup, data = context.setup, context.setup.data
    network = setup.networks.global_cnn()
    with StageTimer("global", setup.compute.device) as stage:
        history = fit(
            network,
            data.batches(data.split.train, network.subdomains, augment=True),
            data.batches(data.split.validation, network.subdomains),
            data.training,
            classes=data.classes,
            stage="global",
            precision=setup.compute.precision,
            progress=context.progress,
            checkpoints=context.checkpoints("global"),
        )
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    whole = setup.networks.global_network(network)
    probabilities = LocalProbabilities(setup, network)
    calibrate_decision(whole, probabilities)
    return {"global": StrategyResult(whole, [stage], {"global": history}, probabilities, "average")}


GLOBAL = Strategy(
    train_global,
    "global CNN",
    "One network looks at the whole image. This is the baseline.",
    stages={"global": "global CNN"},
    trains="global",
)

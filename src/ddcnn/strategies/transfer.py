"""Strategy "transfer": the coherent model, started from trained local CNNs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from ddcnn.config import Config, TrainingConfig
from ddcnn.planning import Setup, Work
from ddcnn.strategies.calibration import forget_decision
from ddcnn.strategies.coherent import train_whole, whole_work
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult, decision


def train_transfer(context: StrategyContext, earlier: Results) -> dict[str, StrategyResult]:
    """Train the coherent model on from trained local CNNs, and from their DNN if ``carry_aggregation`` says so.

    The networks that it starts from stay as they are.
    """
    setup, config = context.setup, context.setup.config
    start = decision(earlier, config.aggregation.name)
    local_cnns = copy.deepcopy(start.network.local_cnns)
    aggregation = setup.networks.aggregation(config.aggregation.name, "transfer")
    if config.transfer.carry_aggregation:
        aggregation = copy.deepcopy(start.network.aggregation)
        forget_decision(aggregation, config)
    training = _second_phase(config)
    checkpoints = context.checkpoints("transfer", {"missing": list(start.network.missing)})
    second = train_whole(context, local_cnns, aggregation, training, "transfer", checkpoints)
    stages = [*start.stages, *second.stages]
    return {
        "transfer": StrategyResult(
            second.network, stages, second.histories, second.local_probabilities, second.aggregation
        )
    }


def transfer_works(setup: Setup, _aggregations: Sequence[str] = ()) -> list[Work]:
    """Describe the second phase."""
    return [whole_work(setup, "transfer", _second_phase(setup.config))]


def _second_phase(config: Config) -> TrainingConfig:
    changes = {
        "epochs": config.transfer.epochs or config.training.epochs,
        "lr": config.training.peak_lr * config.transfer.lr_factor,
    }
    return config.training.model_copy(update=changes)


TRANSFER = Strategy(
    train_transfer,
    "transfer",
    "The local CNNs are trained first; the coherent model starts from them and trains on.",
    stages={"transfer": "transfer (second phase)"},
    after=("local",),
    works=transfer_works,
)

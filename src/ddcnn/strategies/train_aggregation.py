"""Train an aggregation on the probabilities of trained local CNNs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.aggregation.absent import silence
from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.seeds import derive_seed
from ddcnn.strategies.strategy import StrategyContext
from ddcnn.training import History, Single, StageTimer, fit
from ddcnn.training.step import deterministic_layers

if TYPE_CHECKING:
    from ddcnn.strategies.local import LocalResult


def train_aggregation(
    context: StrategyContext, name: str, aggregation: nn.Module, local: LocalResult
) -> tuple[StageTimer, History] | None:
    """Train an aggregation in place, by its own rule or as the dense network; None: it has nothing to learn."""
    own = AGGREGATIONS.find(name).fit
    if own is None and not list(aggregation.parameters()):
        return None
    with StageTimer("dnn", context.setup.compute.device) as stage:
        p = silence(local.learned_from(), local.missing)
        if own is not None:
            with deterministic_layers(torch.device("cpu"), derive_seed(context.setup.config.seed, "dnn", "fit")):
                own(aggregation, p, context.setup.data.dataset.labels[local.samples])
            history = History()
        else:
            history = _fit(context, name, aggregation, p, local)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.critical_path_seconds = stage.seconds
    return stage, history


def _fit(context: StrategyContext, name: str, aggregation: nn.Module, learned: Tensor, local: LocalResult) -> History:
    """Minimise the cross-entropy of the global decision, and keep the epoch that validates best."""
    setup, data = context.setup, context.setup.data
    config = setup.config.aggregation
    validation = silence(local.probabilities.of("validation"), local.missing)
    inputs = torch.cat([learned, validation]).to(data.device)
    chosen = torch.cat([local.samples, data.split.validation]).to(data.device)
    labels, weights = data.labels[chosen], {name: values[chosen] for name, values in data.weights.items()}
    seed = derive_seed(setup.config.seed, "dnn", "order")
    index = torch.arange(len(inputs))
    balanced = data.training.sampling == "balanced"
    training = TrainingConfig(
        optimizer="adamw",
        lr=config.lr,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
        batch_size=config.batch_size,
        schedule="onecycle",
        class_weights=data.training.class_weights,
    )
    about = {"missing": list(local.missing)} | ({} if name == "dense" else {"aggregation": name})
    return fit(
        Single(aggregation),
        Batches(inputs, labels, index[: len(learned)], config.batch_size, seed, balanced=balanced, extras=weights),
        Batches(inputs, labels, index[len(learned) :], config.batch_size, seed),
        training,
        classes=data.classes,
        stage="dnn",
        progress=context.progress,
        checkpoints=context.checkpoints("dnn", about),
    )

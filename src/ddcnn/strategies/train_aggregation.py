"""Train an aggregation on what trained local CNNs hand over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ddcnn.aggregation import AGGREGATIONS, LocalOutputs
from ddcnn.aggregation.absent import decide, silence
from ddcnn.aggregation.calibrated import uncalibrated
from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Inputs
from ddcnn.data.batches import Batches
from ddcnn.errors import AggregationError
from ddcnn.network import CNNDNN
from ddcnn.planning import Setup, Work
from ddcnn.seeds import derive_seed, own_random_numbers
from ddcnn.strategies.strategy import StrategyContext
from ddcnn.training import History, Single, StageTimer

if TYPE_CHECKING:
    from ddcnn.strategies.local import LocalResult


def train_aggregation(
    context: StrategyContext, name: str, network: CNNDNN, local: LocalResult
) -> tuple[StageTimer, History] | None:
    """Train the aggregation of a network in place, by its own rule or as the dense network; None: nothing to learn."""
    own = AGGREGATIONS.find(name).fit
    if own is None and not list(network.aggregation.parameters()):
        return None
    with StageTimer(_stage(name), context.setup.compute.device) as stage:
        aggregation, learned = _inputs(network, local.learned_from())
        if own is not None:
            _check_unweighted(context, name)
            with own_random_numbers(torch.device("cpu"), derive_seed(context.setup.config.seed, "dnn", "fit")):
                own(aggregation, learned, context.setup.data.dataset.labels[local.samples])
            history = History()
        else:
            _, validation = _inputs(network, local.probabilities.outputs("validation"))
            history = _fit(context, name, aggregation, learned, validation, local)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.critical_path_seconds = stage.seconds
    return stage, history


def _stage(name: str) -> str:
    """Return the name of the training: several aggregations may learn in one run."""
    return "dnn" if name == "dense" else f"dnn/{AGGREGATIONS.find(name).result}"


def _check_unweighted(context: StrategyContext, name: str) -> None:
    """Raise an `AggregationError` if samples or classes have weights: a training of its own does not know of them."""
    training = context.setup.data.training
    if context.setup.data.weights or training.class_weights or training.sampling == "balanced":
        raise AggregationError(
            f"aggregation {name!r} learns without weights of samples or classes; leave them out, or use dense"
        )


class _Deciding(Single):
    """An aggregation that decides without some of the subdomains, as one member."""

    def __init__(self, aggregation: nn.Module, missing: Sequence[int]) -> None:
        super().__init__(aggregation)
        self.missing = missing

    def forward(self, x: Inputs) -> Tensor:
        """Return (B, 1, K)."""
        assert isinstance(x, Tensor)
        return decide(self.network, x, self.missing).unsqueeze(1)


def _inputs(network: CNNDNN, outputs: LocalOutputs) -> tuple[nn.Module, Tensor]:
    """Return what of the aggregation is trained, and what it learns from, on the CPU; of missing ones, nothing."""
    over = network.handed
    aggregation, handed = uncalibrated(network.aggregation, outputs.handed(over))
    return aggregation, silence(handed, network.missing, None if over is None else over.silent)


def _fit(
    context: StrategyContext, name: str, aggregation: nn.Module, learned: Tensor, validation: Tensor, local: LocalResult
) -> History:
    """Minimise the cross-entropy of the global decision, and keep the epoch that validates best."""
    about = {"missing": list(local.missing)} | local.start.about | ({} if name == "dense" else {"aggregation": name})
    network = _Deciding(aggregation, local.missing)
    work = _work(context.setup, name, torch.cat([learned, validation]), local.samples, lambda: network)
    return work.fit(network, progress=context.progress, checkpoints=context.checkpoints("dnn", about))


def aggregation_work(setup: Setup, name: str, samples: Tensor) -> Work | None:
    """Describe the training of an aggregation that learns from ``samples``; None: it is not trained by steps."""
    if AGGREGATIONS.find(name).fit is not None or not list(setup.networks.aggregation(name).parameters()):
        return None
    N, widths = len(setup.networks.decomposition), setup.networks.feature_widths
    shape = (len(samples) + len(setup.data.split.validation), N, max(widths or [setup.data.classes]))
    handed = torch.full((1, 1, 1), 1 / setup.data.classes).expand(shape)  # as if nothing were known of any sample

    def build() -> _Deciding:
        aggregation, _ = uncalibrated(setup.networks.aggregation(name), handed[:1])
        return _Deciding(aggregation, ())

    return _work(setup, name, handed, samples, build)


def _work(setup: Setup, name: str, handed: Tensor, samples: Tensor, network: Callable[[], _Deciding]) -> Work:
    """Describe the training on what was handed over for ``samples``, and then for those of the validation."""
    data, config = setup.data, setup.config.aggregation
    chosen = torch.cat([samples, data.split.validation]).to(data.device)
    inputs, labels = handed.to(data.device), data.labels[chosen]
    weights = {name: values[chosen] for name, values in data.weights.items()}
    seed = derive_seed(setup.config.seed, "dnn", "order")
    index, learned = torch.arange(len(inputs)), len(samples)
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
    return Work(
        _stage(name),
        network,
        Batches(inputs, labels, index[:learned], config.batch_size, seed, balanced=balanced, extras=weights),
        Batches(inputs, labels, index[learned:], config.batch_size, seed),
        training,
        data.classes,
    )

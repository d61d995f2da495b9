"""Networks that are not trained step by step, but solved for: they have a method ``solve(images, labels)``."""

from __future__ import annotations

import time
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.decomposition import Subimages
from ddcnn.errors import ConfigError
from ddcnn.models import LocalCNNs
from ddcnn.training.checkpoint import Checkpoints, State
from ddcnn.training.epoch import to_row
from ddcnn.training.evaluation import accuracy_of, predict_scores
from ddcnn.training.loop import History, finished
from ddcnn.training.objective import member_losses
from ddcnn.training.progress import Progress


@runtime_checkable
class Solvable(Protocol):
    """A network whose parameters follow from all images at once, such as `ddcnn.models.lda.LDA`."""

    def solve(self, x: Tensor, labels: Tensor) -> None:
        """Set the parameters for normalised images (m, C, *S) and their labels (m,)."""


def is_solvable(network: LocalCNNs) -> bool:
    """Tell whether local CNNs are solved for."""
    return isinstance(network.extract(0), Solvable)


def check_unweighted(training: TrainingConfig, model: str, *, weighted: bool) -> None:
    """Raise a `ConfigError` if samples or classes have weights: a solution does not know of them."""
    if weighted or training.class_weights or training.sampling == "balanced":
        raise ConfigError(f"model {model!r} learns without weights of samples or classes; leave them out")


def solve(
    network: LocalCNNs,
    train: Batches,
    validation: Batches,
    *,
    stage: str,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> History:
    """Solve for each local CNN by itself, in place; the images are seen once, as they are. As one epoch of `fit`."""
    progress, start = progress or Progress(), time.perf_counter()
    progress.begin(stage, epochs=1, steps=1, members=network.members)
    found = None if checkpoints is None else finished(checkpoints)
    if found is not None:
        states, history = found
        for n, state in enumerate(states):
            network.load_member_state(n, state)
        progress.end()
        return history
    labels = train.labels[train.indices.to(train.device)].cpu()
    for n in range(network.members):
        module = network.extract(n)
        cast(Solvable, module).solve(_seen(network, n, train), labels)
        network.load_member_state(n, module.state_dict())
    measured: dict[str, Tensor] = {}
    for part, batches in (("train", train), ("validation", validation)):
        scores, targets = predict_scores(network, batches), batches.labels[batches.indices.to(batches.device)].cpu()
        measured[f"{part}_loss"] = member_losses(scores, targets)
        measured[f"{part}_accuracy"] = accuracy_of(scores, targets)
    members, seconds = network.members, time.perf_counter() - start
    row: dict[str, Any] = {"stage": stage, "epoch": 1, "seconds": round(seconds, 3)}
    row |= to_row(measured | {"lr": torch.zeros(members)}, range(members), members)
    progress.epoch(row)
    history = History([row], [1] * members, [None] * members, seconds, 1)
    if checkpoints is not None:
        checkpoints.save(_state(network, history))
    progress.end()
    return history


def _seen(network: LocalCNNs, n: int, train: Batches) -> Tensor:
    """Return what local CNN n sees of all samples, on the CPU."""
    own, parts = train.subset([n]), []
    alone = network.subset([n])
    for batch in own.in_order():
        assert isinstance(batch.inputs, Subimages)
        parts.append(alone.seen_by(0, batch.inputs).cpu())
    return torch.cat(parts)


def _state(network: LocalCNNs, history: History) -> State:
    """Return what `finished` reads."""
    tensors = {
        f"kept/{n}/{name}": value for n in range(network.members) for name, value in network.member_state(n).items()
    }
    numbers = {
        "finished": True,
        "rows": history.rows,
        "steps": history.steps,
        "seconds": history.seconds,
        "peak_memory_bytes": None,
        "watch": {"best_epochs": history.best_epochs, "diverged": history.diverged},
    }
    return State(tensors, numbers)

"""`Work`: one training of a run, described before it begins; trained as it is described, and planned from the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.data.two_views import TwoViews
from ddcnn.models import LocalCNNs
from ddcnn.training import History, Objective, PrecisionName, TrainableMembers, fit
from ddcnn.training.closed_form import solve
from ddcnn.training.weight_average import batches_to_measure


@dataclass(frozen=True)
class Work:
    """A training: what is trained, on what, and how.

    Attributes
    ----------
    stage
        Name of the training, such as ``"local"``.
    network
        Makes such a network; whoever trains has perhaps another one, of the same form.
    train, validation
        What it is trained on, and what chooses the epoch.
    training, own
        As `ddcnn.training.fit` takes them.
    classes
        K.
    precision, graphs, objective
        As `ddcnn.training.fit` takes them.
    times
        How often such a training is done, one after the other.
    looked_at
        Samples that the local CNNs look at before it, for it to learn from.
    placed
        Whether an engine places it, so that several workers can share the ``times``.
    alike
        Trainings whose steps cost the same have the same; None: no other does.
    exchanged
        Numbers per image that ranks would exchange in a step.
    solved
        Whether its networks are solved for, all at once: see `ddcnn.training.closed_form`.
    """

    stage: str
    network: Callable[[], TrainableMembers]
    train: Batches | TwoViews
    validation: Batches
    training: TrainingConfig
    classes: int
    own: Sequence[TrainingConfig] | None = None
    precision: PrecisionName = "float32"
    graphs: bool = False
    objective: Objective | None = None
    times: int = 1
    looked_at: int = 0
    placed: bool = False
    alike: object = None
    exchanged: int = 0
    solved: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps of one such training."""
        return 1 if self.solved else self.training.epochs * self.train.steps

    @property
    def epochs(self) -> int:
        """How often it sees its samples."""
        return 1 if self.solved else self.training.epochs

    @property
    def looks(self) -> int:
        """Samples that are looked at in an epoch without training: to validate, and to measure batch norm of a mean."""
        measured = 0 if self.training.ema is None else batches_to_measure(self.train.steps) * self.train.batch_size
        return len(self.validation) + measured

    def fit(self, network: TrainableMembers, **watched: Any) -> History:
        """Train a network of this form in place, or solve for it; what else is given is for `ddcnn.training.fit`."""
        if self.solved:
            assert isinstance(network, LocalCNNs)
            assert isinstance(self.train, Batches)
            return solve(network, self.train, self.validation, stage=self.stage, **watched)
        return fit(
            network,
            self.train,
            self.validation,
            self.training,
            classes=self.classes,
            stage=self.stage,
            own=self.own,
            precision=self.precision,
            graphs=self.graphs,
            objective=self.objective,
            **watched,
        )

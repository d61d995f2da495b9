"""`Strategy`: what is known of a strategy; what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.engines import Engine
from ddcnn.network import CNNDNN
from ddcnn.planning import Setup, Work
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.training import Checkpoints, History, Progress, StageTimer, Workspace


@dataclass(frozen=True)
class StrategyContext:
    """What every strategy is given.

    Attributes
    ----------
    setup
        Data, networks, computation, ranks.
    engine
        Where local CNNs are trained.
    progress
        Who is told how it goes.
    workspace
        Where checkpoints lie; None: nowhere.
    aggregations
        Under which local CNNs are to decide.
    found
        What strategies have in common and found once: where their trainings begin.
    """

    setup: Setup
    engine: Engine
    progress: Progress = field(default_factory=Progress)
    workspace: Workspace | None = None
    aggregations: tuple[str, ...] = ("dense",)
    found: dict[str, Any] = field(default_factory=dict)

    def checkpoints(self, stage: str, inputs: Mapping[str, object] | None = None) -> Checkpoints | None:
        """Return the checkpoints of one training; ``inputs`` are what it depends on beside the setup."""
        return None if self.workspace is None else self.workspace.of(stage, inputs)


@dataclass(frozen=True)
class StrategyResult:
    """A trained network and how it came about.

    Attributes
    ----------
    network
        The whole flow, from raw images to global scores.
    stages
        What was done for it, in order, earlier stages that it builds on included.
    histories
        Of the stages, by name.
    local_probabilities
        What its local CNNs say of each part of the data.
    aggregation
        Name of its aggregation in the registry.
    shares_local_cnns
        Whether its local CNNs, trained without communication, are those of other results as well.
    whole_image
        Whether it is the global CNN.
    """

    network: CNNDNN
    stages: list[StageTimer]
    histories: dict[str, History]
    local_probabilities: LocalProbabilities
    aggregation: str
    shares_local_cnns: bool = False
    whole_image: bool = False

    @torch.no_grad()
    def scores(self, part: str) -> Float[Tensor, "n K"]:
        """Return the scores of the ``"train"``, ``"validation"`` or ``"test"`` part, in its order, on the CPU."""
        self.network.aggregation.eval()
        handed = self.local_probabilities.handed(part, self.network.handed)
        return self.network.decide(handed.to(self.local_probabilities.setup.compute.device)).float().cpu()

    @property
    def epochs(self) -> int:
        """Epochs over the images, earlier stages included."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Wall-clock time, earlier stages included."""
        return sum((stage.seconds for stage in self.stages), 0.0)

    @property
    def critical_path_seconds(self) -> float | None:
        """Time if each subdomain had its own worker, or None where a stage was not measured."""
        known = [stage.critical_path_seconds for stage in self.stages]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest peak of its stages, or None where one was not measured."""
        known = [stage.peak_memory_bytes for stage in self.stages]
        return None if None in known else max(peak for peak in known if peak is not None)


Results = Mapping[str, StrategyResult]


@dataclass(frozen=True)
class Strategy:
    """What is known of a strategy.

    Attributes
    ----------
    run
        Trains: (context, results of the strategies before it) -> its own results, by name.
    label, sentence
        What readers call it, and what it does.
    stages
        Its stages of training, by name, and what readers call them.
    after
        The strategies whose results it builds on.
    trains
        What it trains at once: ``"subdomains"``, each local CNN by itself, the ``"global"`` CNN, or the ``"coherent"``
        model.
    over_ranks
        Whether it can be spread over ranks.
    compared
        Whether `ddcnn.compare` trains it.
    check
        Raises a `DdcnnError` if it cannot be trained on a setup, before anything is trained or written.
    works
        Describes its trainings before they begin: (setup, names of the aggregations) -> one `Work` each, in order.
        None: as those of the strategy of ours that trains the same.
    """

    run: Callable[[StrategyContext, Results], dict[str, StrategyResult]]
    label: str
    sentence: str
    stages: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    trains: str = "coherent"
    over_ranks: bool = False
    compared: bool = True
    check: Callable[[Setup], None] = lambda _setup: None
    works: Callable[[Setup, Sequence[str]], list[Work]] | None = None


def decision(results: Results, aggregation: str) -> StrategyResult:
    """Return the result of the local CNNs under one aggregation."""
    return results[AGGREGATIONS.find(aggregation).result]

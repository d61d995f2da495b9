"""`StrategyResult`: what a strategy returns."""

from __future__ import annotations

from dataclasses import dataclass

from ddcnn.network import CNNDNN
from ddcnn.training import History, StageTimer


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
        Of its own stages, by name.
    """

    network: CNNDNN
    stages: list[StageTimer]
    histories: dict[str, History]

    @property
    def epochs(self) -> int:
        """Epochs over the images, earlier stages included."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Wall-clock time, earlier stages included."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def critical_path_seconds(self) -> float | None:
        """Time if each subdomain had its own worker, or None where a stage was not measured."""
        parts = [stage.critical_path_seconds for stage in self.stages]
        return None if None in parts else sum(p for p in parts if p is not None)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest peak of its stages, or None where one was not measured."""
        parts = [stage.peak_memory_bytes for stage in self.stages]
        return None if None in parts else max(p for p in parts if p is not None)

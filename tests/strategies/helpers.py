"""What tests of where trainings begin have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ddcnn
from ddcnn.training import Progress
from ddcnn.training.interruption import INTERRUPTION

TRAINED = {"name": "trained"}


def equal(a: Any, b: Any) -> bool:
    """Tell whether two states are the same, bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def local_states(run: Path) -> list[dict[str, Tensor]]:
    """Return the states of the four local CNNs of a run."""
    network = ddcnn.load(run, trust=True)
    return [network.local_cnns.member_state(n) for n in range(4)]


class Leaves(Progress):
    """Counts steps, notes what is trained, and ends the run at one of the steps, as SIGTERM does."""

    def __init__(self, at: int) -> None:
        self.steps, self.at = 0, at
        self.begun: list[str] = []
        self.epochs: list[str] = []

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.begun.append(stage)

    def epoch(self, row: dict[str, Any]) -> None:
        self.epochs.append(row["stage"])

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.steps += 1
        if self.steps == self.at:
            INTERRUPTION.request(signal.SIGTERM)

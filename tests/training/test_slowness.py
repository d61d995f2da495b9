"""A stage that gets slow says so once; clocks are told what to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddcnn.config import TrainingConfig
from ddcnn.cores import CoreTimes
from ddcnn.models import LocalCNNs
from ddcnn.planning import computing_with
from ddcnn.training import Progress, fit, slowness
from ddcnn.training.slowness import StepWatch
from tests.training.helper import GRID, SIZE, small_data, small_networks


class Machine:
    """A machine of two cores, whose time passes as it is told."""

    def __init__(self) -> None:
        self.seconds = self.busy = self.own = 0.0

    def passes(self, seconds: float, others: float = 0.0) -> None:
        """Let time pass, while others keep so many cores busy."""
        self.seconds += seconds
        self.own += seconds * (2 - others)
        self.busy += 100 * seconds * 2

    def look(self) -> CoreTimes:
        return CoreTimes(2, self.busy, 200 * self.seconds, self.own, self.seconds)


def lines(steps: list[tuple[float, float]], *, threads: int = 2, between: float = 0.0) -> list[tuple[int, str]]:
    """Return what is said, and after which step; a step is its seconds, and the cores that others keep busy."""
    machine = Machine()
    watch = StepWatch(lambda: machine.seconds, machine.look)
    found = []
    with computing_with(threads):
        for i, (seconds, others) in enumerate(steps):
            watch.begin()
            machine.passes(seconds, others)
            if line := watch.end():
                found.append((i, line))
            machine.passes(between)
    return found


def test_a_slow_stage_says_so_once() -> None:
    """The first 2 s are 16 steps; the next 5 s are 10."""
    said = lines([(3.0, 0)] + [(0.125, 0)] * 16 + [(0.5, 1.1)] * 50)
    line = (
        "a step takes 0.5 s, 4.0 times as long as at first; other programs keep 1.1 of 2 cores busy, and this one "
        "computes with 2 threads; go on with --resume and --threads 1"
    )
    assert said == [(26, line)]


@pytest.mark.parametrize(
    "steps",
    [
        [(0.1, 0)] * 500,
        [(0.1, 0)] * 100 + [(0.25, 1.0)] * 100,  # 2.5 times
        [(0.1, 0)] * 100 + [(60.0, 0)] + [(0.1, 0)] * 100,  # suspended once
        [(0.1, 0)] * 30 + [(0.5, 2.0)] * 6 + [(0.1, 0)] * 100,  # 3 seconds
        [(9.0, 0)] + [(0.1, 0)] * 100,  # the very first one
        [(0.1, 0)] * 3,
    ],
)
def test_a_machine_that_is_not_slow_says_nothing(steps: list[tuple[float, float]]) -> None:
    assert lines(steps) == []


def test_what_lies_between_steps_does_not_count() -> None:
    assert lines([(0.1, 0)] * 200, between=10.0) == []


@pytest.mark.parametrize(
    ("others", "threads", "cause"),
    [
        (1.0, 1, "other programs keep 1.0 of 2 cores busy, which does not explain it; "),
        (0.1, 2, "other programs keep 0.1 of 2 cores busy, which does not explain it; "),
        (1.9, 1, "other programs keep 1.9 of 2 cores busy, and this one computes with 1 thread"),
    ],
)
def test_the_likely_cause(others: float, threads: int, cause: str) -> None:
    ((_, line),) = lines([(3.0, 0)] + [(0.125, 0)] * 16 + [(0.5, others)] * 30, threads=threads)
    assert line.partition("at first; ")[2].startswith(cause)
    assert "--threads" not in line


class _Notes(Progress):
    """Lets the machine get slow in the third epoch."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.notes, self.epochs = machine, [], 0

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.machine.passes(1.0 if self.epochs < 3 else 4.0, 0.0 if self.epochs < 3 else 1.0)

    def epoch(self, row: dict[str, Any]) -> None:
        self.epochs += 1
        self.machine.passes(100.0, 0.0 if self.epochs < 3 else 1.0)

    def note(self, text: str) -> None:
        self.notes.append((self.epochs, text))


@pytest.mark.usefixtures("seeded")
def test_a_training_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(slowness, "_CLOCK", lambda: machine.seconds)
    monkeypatch.setattr(slowness, "_LOOK", machine.look)
    progress = _Notes(machine)
    local_cnns = LocalCNNs(GRID, small_networks(), image_size=SIZE)
    with computing_with(2):
        fit(local_cnns, *small_data(), TrainingConfig(epochs=8, lr=0.01), classes=3, stage="local", progress=progress)
    ((epoch, text),) = progress.notes
    assert text.startswith("local: a step takes 4 s, 4.0 times as long as at first; other programs keep 1.0 of 2 cores")
    assert epoch == 3

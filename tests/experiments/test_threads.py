"""A run beside another program computes with fewer threads, says so, and goes on as it began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ddcnn
from ddcnn.planning import computing_with, threads
from ddcnn.training import Progress


class StopError(Exception):
    pass


class Watcher(Progress):
    """Notes with how many threads each step is computed; stops the training after an epoch, if it is to."""

    def __init__(self, *, stop: bool = False) -> None:
        self.stop, self.threads, self.notes = stop, set(), []

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.threads.add(torch.get_num_threads())

    def epoch(self, row: dict[str, Any]) -> None:
        if self.stop:
            raise StopError

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Provide how many of the two cores others keep busy, to be changed."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    now = [2.0]
    monkeypatch.setattr(threads, "busy_with_others", lambda: now[0])
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "allowed_cores", lambda: 2)
    with computing_with(2):
        yield now


@pytest.fixture
def config(make_config: Callable[..., ddcnn.Config]) -> ddcnn.Config:
    return make_config(strategy="local", training={"epochs": 1}, model={"name": "tests.strategies.tiny:tiny"})


def stopped(config: ddcnn.Config) -> Watcher:
    watcher = Watcher(stop=True)
    with pytest.raises(StopError):
        ddcnn.train(config, progress=watcher)
    assert torch.get_num_threads() == 2
    return watcher


def test_fewer_threads_from_begin_to_end(config: ddcnn.Config, others: list[float], tmp_path: Path) -> None:
    watcher = stopped(config)
    assert watcher.threads == {1}
    line = "1 instead of 2: other programs kept 2.0 of 2 cores busy; --threads sets another number"
    assert f"threads {line}" in watcher.notes
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["threads"] == 1
    others[0] = 0.0
    again = Watcher()
    comparison = ddcnn.resume(tmp_path / "run", progress=again, trust=True)
    assert again.threads == {1}
    assert comparison.results["details"]["choices"]["threads"] == line
    assert torch.get_num_threads() == 2


def test_on_resume_another_number_may_be_asked_for(config: ddcnn.Config, others: list[float], tmp_path: Path) -> None:
    stopped(config)
    again = Watcher()
    ddcnn.resume(tmp_path / "run", progress=again, compute={"threads": 2}, trust=True)
    assert again.threads == {2}
    assert "threads 2: as asked" in again.notes


def test_on_a_quiet_machine_nothing_changes(config: ddcnn.Config, others: list[float], tmp_path: Path) -> None:
    others[0] = 0.0
    watcher = stopped(config)
    assert watcher.threads == {2}
    others[0] = 2.0
    again = Watcher()
    ddcnn.resume(tmp_path / "run", progress=again, trust=True)
    assert again.threads == {2}
    assert not [note for note in watcher.notes if note.startswith("threads")]
    assert any(note.startswith("threads 2, as the run began, though other programs kept 2.0") for note in again.notes)


@pytest.mark.parametrize("damage", ["2", -1, 10**9, True, [1]])
def test_a_number_that_makes_no_sense_is_left(
    damage: Any, config: ddcnn.Config, others: list[float], tmp_path: Path
) -> None:
    stopped(config)
    path = tmp_path / "run" / "checkpoints" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": damage}))
    again = Watcher()
    ddcnn.resume(tmp_path / "run", progress=again, trust=True)
    assert again.threads == {2}

"""A training that is left at any moment, and taken up from its checkpoint, ends as if it had not been."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.errors import InterruptionError, RunError
from ddcnn.models import LocalCNNs
from ddcnn.training import Checkpoints, Progress, State, fit
from ddcnn.training.elapsed import elapsed_across_restarts
from ddcnn.training.interruption import INTERRUPTION, listening
from tests.fusion.helper import randomize
from tests.training.helper import GRID, SIZE, small_data

KEY = "0" * 64


class Leaves(Progress):
    """Ends the training at a step, as SIGTERM does."""

    def __init__(self, at: int) -> None:
        self.steps, self.at, self.found = 0, at, 0

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.steps += 1
        if self.steps == self.at:
            INTERRUPTION.request(signal.SIGTERM)

    def resumed(self, rows: list[dict[str, object]]) -> None:
        self.found = len(rows)


def _networks(backend: str) -> LocalCNNs:
    torch.manual_seed(1)
    modules = randomize(
        [
            nn.Sequential(
                nn.Conv2d(1, 3, 2, bias=False),
                nn.BatchNorm2d(3),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(12, 3),
            ).double()
            for _ in range(3)
        ]
    )
    return LocalCNNs(GRID, modules, image_size=SIZE, backend=backend)  # type: ignore[arg-type]


def _states(network: LocalCNNs) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in network.member_state(n).items()} for n in range(3)]


CONFIGS = {
    "sgd": {"lr": 0.05, "epochs": 3},
    "adamw, one stops early": {"optimizer": "adamw", "lr": 0.03, "epochs": 5, "patience": 1},
    "plateau, own rates": {
        "schedule": "plateau",
        "plateau_patience": 1,
        "epochs": 4,
        "lr": 0.02,
        "subdomains": {0: {"lr": 0.2}},
    },
    "mean of the weights, sharpness, held layers": {
        "ema": 0.9,
        "sam": 0.05,
        "freeze": 1,
        "layer_decay": 0.5,
        "decay": "weights",
        "lr": 0.05,
        "epochs": 3,
    },
    "adam, last epoch, clipped": {"optimizer": "adam", "lr": 0.01, "select": "last", "clip_norm": 0.1, "epochs": 3},
}


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_is_bit_equal(name: str, backend: str, tmp_path: Path, seeded: None) -> None:
    config = TrainingConfig(**CONFIGS[name])  # type: ignore[arg-type]
    train, validation = small_data()
    own = [config.of(n) for n in range(3)]

    def run(network: LocalCNNs, folder: Path, progress: Progress | None = None) -> list[dict[str, object]]:
        history = fit(
            network, train, validation, config, classes=3, stage="local", own=own, progress=progress,
            checkpoints=Checkpoints(folder, KEY),
        )  # fmt: skip
        assert history.steps == train.steps * history.epochs
        return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]

    expected = _networks(backend)
    rows = run(expected, tmp_path / "whole")
    total = train.steps * len(rows)
    for at in range(1, total + 1, 3):  # of four steps per epoch: within epochs and between them
        folder = tmp_path / f"{at}"
        with pytest.raises(InterruptionError, match="SIGTERM"):
            run(_networks(backend), folder, Leaves(at))
        INTERRUPTION.signal = None
        after = Leaves(0)
        network = _networks(backend)
        assert run(network, folder, after) == rows
        assert after.found == (at - 1) // train.steps
        assert after.steps == total - at  # what was done is not done again
        for got, wanted in zip(_states(network), _states(expected), strict=True):
            assert all(torch.equal(got[k], wanted[k]) for k in wanted)
        assert run(_networks(backend), folder, done := Leaves(0)) == rows
        assert not done.steps


def test_two_generations_and_a_damaged_one(tmp_path: Path) -> None:
    notes: list[str] = []
    checkpoints = Checkpoints(tmp_path / "a", KEY, notes.append)
    assert checkpoints.load() is None
    for number in range(4):
        checkpoints.save(State({"x": torch.tensor([number])}, {"number": number}))
    files = sorted((tmp_path / "a").iterdir())
    assert [file.name[:9] for file in files] == ["000000003", "000000004"]
    content = files[1].read_bytes()
    for position in range(len(content)):
        files[1].write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found = Checkpoints(tmp_path / "a", KEY, notes.append).load()
        assert found is not None
        assert found.numbers["number"] == 2
        assert notes.pop() == f"{files[1]} is damaged: its SHA-256 is not that of its name; it is not used"
    files[1].write_bytes(content[:-1])  # cut off
    again = Checkpoints(tmp_path / "a", KEY, notes.append)
    assert again.load() == State({"x": torch.tensor([2])}, {"number": 2, "key": KEY})
    again.save(State({}, {"number": 9}))
    assert Checkpoints(tmp_path / "a", KEY).load() == State({}, {"number": 9, "key": KEY})


def test_another_training(tmp_path: Path) -> None:
    Checkpoints(tmp_path, KEY).save(State({}, {}))
    with pytest.raises(RunError, match="was made with other data or another configuration; start anew"):
        Checkpoints(tmp_path, "1" * 64).load()


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """In a run that a stranger sent."""
    pipe = tmp_path / f"000000001-{64 * '0'}.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match=f"{pipe} cannot be read: it is a named pipe, not a file"):
        Checkpoints(tmp_path, KEY).load()
    with elapsed_across_restarts(pipe) as earlier:
        assert earlier == 0.0


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, KEY)
    checkpoints.save(State({}, {"number": 1}))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; the checkpoint before it is whole: make room"):
        checkpoints.save(State({}, {"number": 2}))
    assert Checkpoints(tmp_path, KEY).load() == State({}, {"number": 1, "key": KEY})
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(RunError, match="No space left on device; there is no checkpoint before it: make room"):
        Checkpoints(tmp_path / "other", KEY).save(State({}, {"number": 1}))


def test_checkpoints_cost_one_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("ddcnn.training.checkpoint.time", clock)
    checkpoints = Checkpoints(tmp_path, KEY)
    checkpoints._written = 0.0
    monkeypatch.setattr(checkpoints, "put", lambda content, number: setattr(clock, "now", clock.now + 3.0))
    assert checkpoints.due
    assert not checkpoints.overdue
    checkpoints.save(State({}, {}))  # takes 3 seconds
    clock.now = 302.9
    assert not checkpoints.due
    clock.now = 303.1
    assert checkpoints.due
    assert checkpoints.overdue


def test_a_signal_waits_for_the_step_and_a_second_ctrl_c_does_not() -> None:
    with listening():
        with pytest.raises(InterruptionError, match="SIGUSR1"):
            signal.raise_signal(signal.SIGUSR1)  # nothing is under way: at once
        INTERRUPTION.signal = None
        with INTERRUPTION.deferred():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(InterruptionError, match="SIGINT"):
                INTERRUPTION.check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    assert INTERRUPTION.signal is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_state_shares_no_memory(tmp_path: Path) -> None:
    stacked = torch.arange(6.0).view(2, 3)
    checkpoints = Checkpoints(tmp_path, KEY)
    checkpoints.save(State({"0": stacked[0], "1": stacked[1], "t": stacked.T}, {}))
    found = copy.deepcopy(checkpoints.load())
    assert found is not None
    assert found.tensors["1"].tolist() == [3.0, 4.0, 5.0]
    assert found.tensors["t"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]

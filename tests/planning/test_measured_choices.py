"""Precision and backend: measured where that is worth while, else remembered, else the usual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ddcnn
from ddcnn.config import Config
from ddcnn.engines import ALONE
from ddcnn.errors import FusionError
from ddcnn.machine import cache_folder
from ddcnn.planning import Setup, choose_fastest, prepare

Problem = Callable[..., Setup]


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    values = np.random.default_rng(0).integers(0, 255, (24, 1, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=values, labels=np.arange(24) % 2, layout="NCHW")

    def make(model: str = "tests.strategies.tiny:tiny", **compute: str) -> Setup:
        config = {
            "data": {"source": f"npz:{tmp_path / 'd.npz'}"},
            "decomposition": {"grid": "2x2"},
            "model": {"name": model, "width_factor": 0.5},
            "training": {"epochs": 1, "batch_size": 8},
            "compute": {"device": "cpu", **compute},
        }
        return prepare(Config.parse(config))

    return make


def _choose(setup: Setup, steps: int | None) -> tuple[tuple[str, str], dict[str, str]]:
    compute, reasons = choose_fastest(setup.data, setup.networks, setup.compute, ALONE, steps=steps)
    return (compute.precision, compute.backend), reasons


def test_a_short_run_measures_nothing_and_takes_what_is_remembered(problem: Problem) -> None:
    setup = problem(precision="float32")
    chosen, reasons = _choose(setup, 20)
    assert chosen == ("float32", "fused")
    assert reasons == {
        "precision": "float32: as asked",
        "backend": "fused: the run is too short to measure others",
    }
    assert not (cache_folder() / "backends.json").exists()
    measured, reasons = _choose(setup, 10_000)
    assert " measured " in reasons["backend"]
    again, reasons = _choose(setup, 20)
    assert again == measured
    assert reasons["backend"] == f"{again[1]}: the fastest, measured before"


def test_what_is_asked_for_is_taken(problem: Problem) -> None:
    chosen, reasons = _choose(problem(backend="looped"), 20)
    assert chosen == ("float32", "looped")
    assert reasons["backend"] == "looped: as asked"
    assert _choose(problem(backend="vmapped"), 20)[0] == ("float32", "vmapped")


def test_what_cannot_be_fused(problem: Problem) -> None:
    chosen, reasons = _choose(problem("tests.planning.test_measured_choices:branching"), 20)
    assert chosen == ("float32", "looped")
    assert "reads numbers out of a tensor" in reasons["backend"]
    with pytest.raises(FusionError, match="cannot be fused"):
        _choose(problem("tests.planning.test_measured_choices:branching", backend="fused"), 20)


def branching(in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float) -> object:
    from torch import Tensor, nn

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(in_channels, classes)

        def forward(self, x: Tensor) -> Tensor:
            y = x.mean((2, 3))
            return self.head(y if y.sum() > 0 else 2 * y)

    return Branching()


def test_a_device_that_is_named_is_kept_for_what_follows(tmp_path: Path) -> None:
    """Later folds, and a run that is resumed, take the device that is recorded."""
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    for device in ("cpu:0", "cpu", "auto"):
        values = {
            "model": {"name": "tests.strategies.tiny:tiny"},
            "training": {"epochs": 1},
            "compute": {"device": device},
            "out": tmp_path / device.replace(":", "-"),
        }
        run = ddcnn.train(ddcnn.Config.parse(values), (images, labels)).run
        recorded = ddcnn.Config.read(run / "config.yaml").compute.device
        assert recorded == (device if device == "cpu:0" else recorded)
        assert ":" not in recorded or device == "cpu:0"

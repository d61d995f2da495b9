"""A small run, and copies of it to be changed."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ddcnn
from ddcnn.report import write_report
from ddcnn.runs.folder import RunFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two strategies, trained for an epoch, with its report."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 18), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(60) % 3)
    config = {
        "strategy": "transfer",
        "data": {"source": f"npz:{folder / 'data.npz'}"},
        "model": {"width_factor": 0.05},
        "training": {"epochs": 1, "batch_size": 16},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": folder / "run",
    }
    run = ddcnn.train(ddcnn.Config.parse(config)).run
    write_report(run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    """A copy of it, to be changed; and no memory for what a hostile one asks for."""
    return RunFolder(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let no test have more than 2 GiB beyond what the process has now."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)

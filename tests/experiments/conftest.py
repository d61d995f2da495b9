from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddcnn
from tests.bars import write_bars


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (90, 16, 18) images of three classes, told apart by the row of a bright bar."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    images = rng.integers(0, 80, (90, 16, 18), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row = 5 * label + rng.integers(0, 3)
        image[row : row + 3] += 150
    return images, labels


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    images, labels = pictures()
    np.savez(path, images=images, labels=labels)
    return f"npz:{path}"


@pytest.fixture
def make_config(source, tmp_path):
    def make(out: str | Path = "run", **sections) -> ddcnn.Config:
        values = {
            "data": {"source": source},
            "training": {"epochs": 3, "batch_size": 16, "lr": 0.02},
            "aggregation": {"epochs": 4, "batch_size": 16, "hidden": 8},
            "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
            "model": {"name": "resnet20", "width_factor": 0.25},
            "out": tmp_path / out,
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(values.get(name), dict)
            values[name] = values[name] | section if both else section
        return ddcnn.Config.parse(values)

    return make


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a configuration that trains a tiny network on bars."""
    return {
        "data": {"source": write_bars(tmp_path_factory.mktemp("data"), (8, 8))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": [1, 2]},
        "training": {"epochs": 2, "batch_size": 20, "lr": 0.05},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }

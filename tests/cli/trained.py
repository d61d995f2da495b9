"""A small run that was trained, for commands that need its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ddcnn


def train_small(path: Path, **aggregation: object) -> Path:
    """Train a 1x2 decomposition of images of 8x12 pixels for an epoch; return the run."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 150, (60, 8, 12)) + 100 * labels[:, None, None]
    np.savez(path / "d.npz", images=images.astype(np.uint8), labels=labels, classes=np.array(["dark", "bright"]))
    values = {
        "data": {"source": f"npz:{path / 'd.npz'}"},
        "decomposition": {"grid": "1x2", "overlap": 1},
        "model": {"name": "tests.strategies.tiny:tiny", "width_factor": 0.5},
        "training": {"epochs": 1, "batch_size": 16, "lr": 0.02},
        "aggregation": {"epochs": 1, "hidden": 4, **aggregation},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": path / "mine",
    }
    return ddcnn.compare(ddcnn.Config.parse(values)).run

"""`pretraining`: a start from what was learned from other images, against a start at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddcnn
from ddcnn.errors import ConfigError


def bars(path: Path, seed: int, samples: int, noise: int) -> str:
    """Write images of a bright left or right half."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % 2
    images = rng.integers(0, noise, (samples, 6, 8))
    images[labels == 0, :, :4] += 60
    images[labels == 1, :, 4:] += 60
    np.savez(path, images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return f"npz:{path}"


def values(source: str, epochs: int) -> dict[str, Any]:
    return {
        "data": {"source": source},
        "decomposition": {"grid": "1x2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": epochs, "batch_size": 10, "lr": 0.05},
        "aggregation": {"epochs": 2, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }


def test_what_was_learned_before_decides_at_once(tmp_path: Path) -> None:
    before = tmp_path / "before"
    ddcnn.train(values(bars(tmp_path / "many.npz", 0, 400, 60), 8) | {"out": before})
    few = values(bars(tmp_path / "few.npz", 1, 120, 100), 1)
    few["training"]["lr"] = 1e-6  # hardly anything is learned now: what is known was known before
    outcome = ddcnn.experiment("pretraining", few | {"init": {"weights": str(before)}}, seeds=2, out=tmp_path / "e")
    means = {arm["name"]: arm["mean"] for arm in outcome.summary["arms"]}
    assert set(means) == {f"{a}, {b}" for a in ("CNN-DNN", "transfer") for b in ("at random", "from weights")}
    assert means["CNN-DNN, from weights"] > 0.8 > means["CNN-DNN, at random"]


def test_without_weights_it_says_what_it_needs(tmp_path: Path) -> None:
    few = values(bars(tmp_path / "few.npz", 1, 40, 60), 1)
    with pytest.raises(ConfigError, match=r"pretraining needs init\.weights, which is not given: --weights RUN"):
        ddcnn.experiment("pretraining", few, out=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_weights_that_know_the_test_images_are_refused(tmp_path: Path) -> None:
    source = bars(tmp_path / "few.npz", 1, 60, 60)
    ddcnn.train(values(source, 1) | {"out": tmp_path / "before", "seed": 5})
    with pytest.raises(ConfigError, match="learned from"):
        ddcnn.experiment(
            "pretraining", values(source, 1) | {"init": {"weights": str(tmp_path / "before")}}, out=tmp_path / "e"
        )

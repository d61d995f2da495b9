"""Synthetic run folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

ACCURACY = {
    "global": 0.988,
    "average": 0.931,
    "vote": 0.902,
    "cnn-dnn": 0.977,
    "coherent": 0.981,
    "transfer": 0.990,
}
STAGES = {"global": 40.0, "local": 52.0, "dnn": 1.5, "coherent": 55.0, "transfer": 30.0}
TIMES = {
    "global": (40.0, 40.0),
    "average": (52.0, 13.4),
    "vote": (52.0, 13.4),
    "cnn-dnn": (53.5, 14.9),
    "coherent": (55.0, 14.2),
    "transfer": (83.5, 26.0),
}


def boxes_of(grid: Sequence[int], size: Sequence[int], overlap: int = 0) -> list[list[list[int]]]:
    """Return the boxes of a grid, row-major."""
    boxes = []
    for place in np.ndindex(*grid):
        edges = [(i * s // g, (i + 1) * s // g, s) for i, g, s in zip(place, grid, size, strict=True)]
        boxes.append([[max(0, a - overlap), min(s, b + overlap)] for a, b, s in edges])
    return boxes


def comparison(
    *,
    grid: Sequence[int] = (2, 2),
    size: Sequence[int] = (28, 28),
    classes: Sequence[str] = tuple("0123456789"),
    strategies: Sequence[str] = tuple(ACCURACY),
    overlap: int = 0,
    samples: int = 1000,
    parameters: int = 288_000,
) -> dict[str, Any]:
    """Return the content of a realistic `comparison.json`."""
    N, K = math.prod(grid), len(classes)
    random = np.random.default_rng(0)
    local = [0.55 + 0.03 * (n % 5) for n in range(N)]
    return {
        **{"data": "mnist5k", "model": "vgg9", "grid": list(grid), "seed": 7, "device": "cpu", "run": "runs/demo"},
        "strategies": [_strategy(name, parameters) for name in strategies],
        "subdomains": [
            {"index": n, "box": box, "parameters": parameters // N, "test_accuracy": local[n], "best_epoch": 9}
            for n, box in enumerate(boxes_of(grid, size, overlap))
        ],
        "details": {
            "command": "ddcnn compare --data mnist5k --model vgg9 --grid 2x2 --epochs 10 --out runs/demo",
            "classes": list(classes),
            "image_shape": [1, *size],
            "samples": {"train": 3600, "validation": 400, "test": samples},
            "stages": [_stage(name, N) for name in STAGES],
            "confusion": {
                name: (random.integers(0, 4, (K, K)) + np.eye(K, dtype=int) * (samples // K)).tolist()
                for name in strategies
            },
            "subdomains": [_alone(n, accuracy, random, K) for n, accuracy in enumerate(local)],
            "missing": {name: missing(N, ACCURACY[name]) for name in strategies if N > 1 and name != "global"},
            "mistakes": strategies[-1] if strategies else None,
            "choices": {"precision": "bfloat16: 1.7 times as fast as float32", "backend": "fused"},
            "versions": {"python": "3.11.9", "torch": "2.13.0", "ddcnn": "0.1.0"},
        },
    }


def _strategy(name: str, parameters: int) -> dict[str, Any]:
    return {
        "name": name,
        "train_accuracy": min(1.0, ACCURACY[name] + 0.005),
        "validation_accuracy": ACCURACY[name] - 0.003,
        "test_accuracy": ACCURACY[name],
        "parameters": parameters + 14_000 * (name not in ("global", "average", "vote")),
        "epochs": 10,
        "seconds": TIMES[name][0],
        "critical_path_seconds": TIMES[name][1],
        "peak_memory_bytes": 310 * 2**20,
    }


def _stage(name: str, N: int) -> dict[str, Any]:
    seconds, parts = STAGES[name], 1 if name in ("global", "dnn") else N
    critical = seconds / parts * 1.03
    return {"name": name, "seconds": seconds, "critical_path_seconds": critical, "peak_memory_bytes": 300 * 2**20}


def _alone(n: int, accuracy: float, random: np.random.Generator, K: int) -> dict[str, Any]:
    return {
        "index": n,
        "train_accuracy": accuracy + 0.02,
        "validation_accuracy": accuracy - 0.01,
        "test_accuracy": accuracy,
        "class_accuracy": np.clip(accuracy + random.normal(0, 0.15, K), 0, 1).tolist(),
    }


def mistakes_of(images: np.ndarray, N: int, K: int) -> dict[str, np.ndarray]:
    """Return what `mistakes.safetensors` holds of images, or of the slices at 0: class i is taken for i + 1."""
    m = len(images)
    labels = np.arange(m) % K
    found = {"labels": labels, "decided": (labels + 1) % K, "samples": 100 + np.arange(m), "slices": np.zeros(m, int)}
    votes = (labels[:, None] + np.arange(N)) % K
    floats = {"probabilities": 1 - np.arange(m, dtype=np.float32) / 100, "shares": np.full((m, N), 0.5, np.float32)}
    return {"images": images if images.ndim == 4 else images[:, :, 0], "votes": votes, **found, **floats}


def missing(N: int, accuracy: float) -> dict[str, Any]:
    """Return accuracies that fall with the number of missing subdomains."""
    one = [accuracy - 0.01 * (1 + n % 4) for n in range(N)]
    counts = [2**i for i in range(10) if 2**i < N]
    means = [accuracy * (1 - 0.8 * (count / N) ** 2) for count in counts]
    rows = [
        {"missing": count, "sets": 10, "mean": mean, "min": 0.9 * mean, "max": (mean + accuracy) / 2}
        for count, mean in zip(counts, means, strict=True)
    ]
    return {"one": one, "random": rows}


def metrics(N: int, epochs: int = 10, stages: Sequence[str] = tuple(STAGES)) -> list[dict[str, Any]]:
    """Return rows that look like a training."""
    random = np.random.default_rng(1)
    rows = []
    for stage in stages:
        M = N if stage.startswith("local") else 1
        top = 0.7 if stage.startswith("local") else 0.985
        start = 0.95 if stage in ("transfer", "dnn") else 0.2
        best = top + random.normal(0, 0.06, M) * (M > 1)
        for epoch in range(1, epochs + 1):
            level = best - (best - start) * math.exp(-epoch / 2.2)
            noisy = np.clip(level + random.normal(0, 0.008, M), 0, 1)
            rows.append(
                {
                    "stage": stage,
                    "epoch": epoch,
                    "seconds": epoch * 4.2,
                    "lr": 0.1,
                    "train_loss": (1 - noisy).tolist(),
                    "train_accuracy": (noisy - 0.03).tolist(),
                    "validation_loss": (1 - noisy).tolist(),
                    "validation_accuracy": noisy.tolist(),
                }
            )
    return rows


def images_of(size: Sequence[int], n: int = 3, channels: int = 1) -> np.ndarray:
    """Return (n, channels, *size) uint8 images of a soft ball."""
    axes = np.meshgrid(*(np.linspace(-1, 1, s) for s in size), indexing="ij")
    images = [np.exp(-3 * sum((axis - 0.1 * i) ** 2 for axis in axes)) for i in range(n)]
    return np.stack([np.stack([np.uint8(255 * image)] * channels) for image in images])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder; keywords go to `comparison`, or replace a whole file's content."""

    def make(
        results: dict[str, Any] | None = None,
        rows: list[dict[str, Any]] | None = None,
        images: np.ndarray | None = None,
        name: str = "run",
        **options: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        results = comparison(**options) if results is None else results
        size = options.get("size", (28, 28))
        images = images_of(size) if images is None else images
        rows = metrics(max(1, len(results.get("subdomains") or []))) if rows is None else rows
        (folder / "comparison.json").write_text(json.dumps(results))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "config.yaml").write_text("recipe: fast\nseed: 7\ndata:\n  source: mnist5k\n")
        (folder / "environment.json").write_text(json.dumps({"machine": {"cpu": "2 cores"}, "threads": 2}))
        (folder / "split.json").write_text("{}")
        save_file({"images": images, "labels": np.arange(len(images))}, folder / "examples.safetensors")
        N, K = len(results.get("subdomains") or []), len((results.get("details") or {}).get("classes") or "ab")
        if N:
            save_file(mistakes_of(images, N, K), folder / "mistakes.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """Offer the makers of this file to the tests."""
    makers = {"boxes_of": boxes_of, "comparison": comparison, "images_of": images_of, "metrics": metrics}
    return SimpleNamespace(**makers, mistakes_of=mistakes_of)

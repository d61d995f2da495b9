"""Write ``losses.json``: what every stage of a small comparison lost, epoch by epoch.

A refactor must reproduce these numbers. Made on the CPU, in float32, with one thread and fixed seeds by::

    make golden

The learning rate is small on purpose. At 0.01 with batches of 16, changing the initial parameters by 1e-6, relative,
changes losses by up to 3e-2, so that another processor, which rounds in another order, had other losses; at 0.001 with
batches of 30 by less than 8e-5.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ddcnn

GOLDEN = Path(__file__).with_name("losses.json")
CASES = {
    "vgg9-2x2": {"model": {"name": "vgg9"}, "decomposition": {"grid": "2x2"}},
    "resnet20-1x3-overlap": {"model": {"name": "resnet20"}, "decomposition": {"grid": "1x3", "overlap": "0x2"}},
}


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return (120, 16, 18, 3) images of three classes: the place of a bright square, on noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pictures = rng.integers(0, 90, (120, 16, 18, 3), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        top, left = rng.integers(0, 4), rng.integers(0, 3)
        picture[4 * label + top : 4 * label + top + 4, 6 * label + left : 6 * label + left + 4] += 120
    return pictures, labels


def losses(case: dict[str, Any]) -> dict[str, list[float]]:
    """Return the training losses of each stage: epoch after epoch, member after member."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pictures, labels = images()
            np.savez(f"{folder}/data.npz", images=pictures, labels=labels)
            config = ddcnn.Config.parse(
                {
                    "data": {"source": f"npz:{folder}/data.npz"},
                    "training": {"epochs": 3, "batch_size": 30, "lr": 0.001, "shift": 1, "flip": True},
                    "aggregation": {"epochs": 3, "batch_size": 32},
                    "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
                    "out": f"{folder}/run",
                    **case,
                }
            )
            run = ddcnn.compare(config).run
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    finally:
        torch.set_num_threads(threads)
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["stage"], []).extend(row["train_loss"])
    return found


if __name__ == "__main__":
    golden = {name: losses(case) for name, case in CASES.items()}
    GOLDEN.write_text(json.dumps({"torch": torch.__version__, "losses": golden}, indent=1) + "\n")

"""What does the training loop cost beside forward, backward and optimiser? Target: under 5 % of a step.

    python benchmarks/overhead.py [--images 12800] [--epochs 3]

Random images of CIFAR-10's shape (the contents do not matter), flips and shifts on, resident on the device. The
whole epoch is timed, and in it each step (forward, backward, optimiser); the rest is overhead: order, augmentation,
normalisation, metrics, progress. The first epoch is a warm-up; the evaluation is not part of an epoch here.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.config import TrainingConfig
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.data.moments import moments
from ddcnn.decomposition import Grid
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.training import Progress, Step, fit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Epochs(Progress):
    """Notes when the steps of each epoch begin and end, and how long the steps themselves took."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.inside, self.shares = steps, 0, 0.0, []

    def begin(self, stage, *, epochs, steps, members):
        self.start = time.perf_counter()

    def advance(self, images, mean):
        mean()
        self.done += 1
        if self.done == self.steps:
            total = time.perf_counter() - self.start
            self.shares.append(1 - self.inside / total)

    def epoch(self, row):
        self.done, self.inside, self.start = 0, 0.0, time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    images = torch.randint(0, 256, (arguments.images, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    labels = torch.randint(0, 10, (arguments.images,), device=DEVICE)
    lines = [
        "# What the training loop costs beside forward, backward and optimiser",
        "",
        describe_machine(
            f"python benchmarks/overhead.py --images {arguments.images} --epochs {arguments.epochs}", DEVICE
        ),
        "",
        "| model | N | precision | overhead, % of the time of an epoch's steps: median [min, max] |",
        "|---|---|---|---|",
    ]
    for model in ("resnet20", "vgg9"):
        for grid in ((1, 1), (2, 2), (4, 4)):
            shares = overhead(model, grid, images, labels, arguments.epochs)
            low, middle, high = 100 * np.min(shares), 100 * np.median(shares), 100 * np.max(shares)
            lines.append(f"| {model} | {grid[0] * grid[1]} | bfloat16 | {middle:.1f} [{low:.1f}, {high:.1f}] |")
            print(lines[-1], flush=True)
    write(arguments.out, "overhead", lines, DEVICE)


def overhead(model: str, grid: tuple[int, int], images: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    decomposition = Grid(grid)
    width = width_rule(len(decomposition))
    modules = [build(model, 3, 10, s.shape, width=width, seed=s.index) for s in decomposition.subdomains((32, 32))]
    normalization = Normalization.of_moments(moments(images[:1000].cpu()), 32 * 32).to(DEVICE)
    networks = [module.to(DEVICE) for module in modules]
    network = LocalCNNs(
        decomposition, networks, image_size=(32, 32), backend="fused", channels=3, normalization=normalization
    )
    everything = torch.arange(len(images))
    train = Batches(Resident(images), labels, everything, 128, 0, Augmentation((1,), 4), subdomains=network.subdomains)
    few = replace(train, indices=everything[:128], augmentation=None)
    watch = _Epochs(train.steps)
    call = Step.__call__

    def timed(self, *args, **kwargs):
        start = time.perf_counter()
        result = call(self, *args, **kwargs)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        watch.inside += time.perf_counter() - start
        return result

    Step.__call__ = timed
    try:
        config = TrainingConfig(epochs=1 + epochs, lr=0.01)
        fit(network, train, few, config, classes=10, stage="overhead", precision="bfloat16", progress=watch)
    finally:
        Step.__call__ = call
    return watch.shares[1:]


if __name__ == "__main__":
    main()

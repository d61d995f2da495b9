"""Is the baseline as fast as it can be? A training step of the global CNN, as ddcnn trains it and in plain PyTorch.

    python benchmarks/global_cnn.py [--rounds 12] [--batch 128] [--out FILE.md]

Target: at least 1.3 times as fast. Random images of CIFAR-10's shape, resident. Plain is what a tutorial writes: the
same module in float32 and the default layout, `torch.optim.SGD` with its defaults, `F.cross_entropy`; images are
normalised batch by batch, and nothing is augmented. ddcnn's step cuts, flips and shifts as well. Both take turns, five
steps at once, after one turn as a warm-up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, synchronize, write

import ddcnn
from ddcnn.config import Config
from ddcnn.models import build
from ddcnn.planning import Setup, Work, decide, prepare
from ddcnn.planning.trial import endless, step_of
from ddcnn.strategies import works_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STEPS, CLASSES, SIZE = 5, 10, (32, 32)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# The global CNN, as ddcnn trains it and in plain PyTorch",
        "",
        describe_machine(f"python benchmarks/global_cnn.py --rounds {arguments.rounds}", DEVICE),
        "",
        "| model | precision | plain, ms per step | ddcnn | plain / ddcnn: median [min, max] |",
        "|---|---|---:|---:|---:|",
    ]
    for model in ("resnet20", "vgg9"):
        for precision in ("auto", "float32"):
            setup = _setup(model, precision, arguments.batch)
            chosen = setup.compute.config.precision
            work = next(work for work in works_of("global", setup, ()) if work.stage == "global")
            ways = {"plain": _plain(model, setup, arguments.batch), "ddcnn": _ours(work)}
            seconds = in_turns(ways, arguments.rounds)
            ratio = seconds["plain"] / seconds["ddcnn"]
            plain, ours = (f"{1000 * np.median(seconds[name]) / STEPS:.1f}" for name in ways)
            lines.append(
                f"| {model} | {precision} ({chosen}) | {plain} | {ours} | "
                f"{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] |"
            )
            print(lines[-1], flush=True)
    write(arguments.out, "global-cnn", lines, DEVICE)


def _setup(model: str, precision: str, batch: int) -> Setup:
    config = Config.parse(
        {
            "model": {"name": model},
            "training": {"batch_size": batch, "lr": 0.01, "shift": 4, "flip": True, "epochs": 100},
            "compute": {"device": DEVICE.type, "precision": precision, "backend": "fused"},
        }
    )
    images = np.random.default_rng(0).integers(0, 256, (4 * STEPS * batch, *SIZE, 3), dtype=np.uint8)
    setup = prepare(config, ddcnn.as_dataset(images, np.arange(len(images)) % CLASSES))
    return decide(setup, ("global",))[0]


def _ours(work: Work) -> Callable[[], None]:
    steps = endless(step_of(work, work.network()), work.train)

    def run() -> None:
        for _ in islice(steps, STEPS):
            pass
        synchronize(DEVICE)

    return run


def _plain(model: str, setup: Setup, batch: int) -> Callable[[], None]:
    network = build(model, 3, CLASSES, SIZE).to(DEVICE).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    samples = setup.data.split.train[: STEPS * batch]
    with closing(setup.data.batches(samples, ()).in_order(batch)) as batches:
        labels = torch.cat([found.targets for found in batches])
    images = torch.randint(0, 256, (STEPS * batch, 3, *SIZE), dtype=torch.uint8, device=DEVICE)

    def run() -> None:
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network((x.float() - 127) / 60), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        synchronize(DEVICE)

    return run


if __name__ == "__main__":
    main()

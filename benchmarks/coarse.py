"""What does a coarse level cost? Target: a step with it takes at most 1.35 times one without, at N = 4.

    python benchmarks/coarse.py [--rounds 20] [--batch 128]

One CNN more beside four is a quarter more work. A step is all that a training step is: taking the batch, cutting it and
averaging it down, forward, backward, optimiser. Images of CIFAR-10's shape, random (the contents do not matter),
resident on the device. With and without are timed in turns in this process, five steps at once, after one turn as a
warm-up; the ratio is that of the medians, with the smallest and the largest of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, synchronize, write

from ddcnn.config import TrainingConfig
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.decomposition import Decomposition, Grid, WithCoarse
from ddcnn.fusion.backend_choice import measure
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.training import CrossEntropy, MemberOptimizer, PrecisionName, Step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE, STEPS = (32, 32), 5
PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# What a coarse level costs",
        "",
        describe_machine(f"python benchmarks/coarse.py --rounds {arguments.rounds} --batch {arguments.batch}", DEVICE),
        "",
        "| model | precision | coarse size | groups | ms per step without | with | ratio: median [min, max] |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for model in ("resnet20", "vgg9"):
        for precision in PRECISIONS:
            for size in ((16, 16), (12, 12)):  # that of a subimage, which runs with them as one; and one of its own
                fine, two = Grid((2, 2)), WithCoarse(Grid((2, 2)), size)
                steps = {name: step(d, model, precision, arguments.batch) for name, d in (("fine", fine), ("two", two))}
                timed = {name: run for name, (run, _) in steps.items()}
                seconds = measure(timed, rounds=arguments.rounds)
                a, b = np.array(seconds["fine"]), np.array(seconds["two"])
                ratio, each = np.median(b) / np.median(a), b / a
                lines.append(
                    f"| {model} | {precision} | {size[0]}x{size[1]} | {steps['two'][1]} | "
                    f"{1000 * np.median(a) / STEPS:.1f} | {1000 * np.median(b) / STEPS:.1f} | "
                    f"{ratio:.2f} [{each.min():.2f}, {each.max():.2f}] |"
                )
                print(lines[-1], flush=True)
    write(arguments.out, "coarse", lines, DEVICE)


def step(
    decomposition: Decomposition, model: str, precision: PrecisionName, batch: int
) -> tuple[Callable[[], None], int]:
    """Return what does some training steps of all local CNNs, and the number of groups in which they run."""
    subdomains = decomposition.subdomains(SIZE)
    width = width_rule(decomposition.fine)
    modules = [build(model, 3, 10, s.shape, width=width, seed=s.index).to(DEVICE) for s in subdomains]
    network = LocalCNNs(
        decomposition,
        modules,
        image_size=SIZE,
        backend="fused",
        channels=3,
        normalization=Normalization(torch.full((3,), 127.0), torch.full((3,), 60.0)).to(DEVICE),
    )
    images = torch.randint(0, 256, (STEPS * batch, 3, *SIZE), dtype=torch.uint8, device=DEVICE)
    labels = torch.randint(0, 10, (len(images),), device=DEVICE)
    everything = torch.arange(len(images))
    batches = Batches(Resident(images), labels, everything, batch, 0, Augmentation((1,), 4), subdomains=subdomains)
    one = Step(network, MemberOptimizer(network, TrainingConfig(lr=0.01)), precision, CrossEntropy())
    network.train()

    def run() -> None:
        for samples in batches.shuffled(1):
            one(samples)
        synchronize(DEVICE)

    return run, len(network.groups)


if __name__ == "__main__":
    main()

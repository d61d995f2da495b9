"""What does fusing save? A training step of N fused local CNNs against the loop over them, and against the global CNN.

    python benchmarks/fusion.py [--rounds 15] [--out benchmarks/results/fusion-<hardware>-<date>.md]

Forward, backward and optimiser step on random images; the candidates take turns in one process; the first turn is a
warm-up and not counted; medians, with the quartiles of the ratio. Synthetic input, so no data set is needed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, in_turns, write

from ddcnn.config import TrainingConfig
from ddcnn.decomposition import Grid
from ddcnn.fusion import LocalCNNs
from ddcnn.models import build, width_rule
from ddcnn.training import MemberOptimizer, PrecisionName, Step

# model, image shape (C, *S), grid
SHAPES = [(model, (3, 32, 32), grid) for model in ("vgg9", "resnet20") for grid in ((1, 1), (2, 2), (4, 4))] + [
    ("vgg9", (3, 180, 180), (2, 2)),
    ("resnet20", (1, 32, 32, 32), (2, 2, 2)),
]
CLASSES = 10


def step_of(
    model: str, shape: tuple[int, ...], grid: tuple[int, ...], backend: str, precision: PrecisionName, batch: int
) -> Callable[[], object]:
    channels, *size = shape
    decomposition = Grid(grid)
    width = width_rule(len(decomposition))
    modules = [
        build(model, channels, CLASSES, s.shape, width=width, seed=s.index) for s in decomposition.subdomains(size)
    ]
    network = LocalCNNs(decomposition, [m.to(DEVICE) for m in modules], image_size=size, backend=backend).train()
    step = Step(network, MemberOptimizer(network, TrainingConfig(lr=0.01, weight_decay=0.0)), precision)
    images = torch.randn(batch, *shape, device=DEVICE)
    labels = torch.randint(CLASSES, (batch,), device=DEVICE)

    def run() -> None:
        step(images, labels)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    precisions: list[PrecisionName] = ["float32", "bfloat16"]
    lines = [
        "# A fused training step against the loop over N local CNNs",
        "",
        describe_machine(f"python benchmarks/fusion.py --rounds {arguments.rounds}", DEVICE),
        "",
        "Milliseconds: medians. Ratio: loop / fused, median of the turns [quartiles]; above 1 fusing is faster.",
        "",
        "| model | image | N | batch | precision | global ms | loop ms | fused ms | loop / fused | global / fused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ratios = []
    for model, shape, grid in SHAPES:
        batch = 128 if math.prod(shape) < 10_000 else 16
        for precision in precisions:
            whole = (1,) * len(grid)
            times = in_turns(
                {
                    "global": step_of(model, shape, whole, "looped", precision, batch),
                    "loop": step_of(model, shape, grid, "looped", precision, batch),
                    "fused": step_of(model, shape, grid, "fused", precision, batch),
                },
                arguments.rounds,
            )
            ratio = times["loop"] / times["fused"]
            low, middle, high = np.percentile(ratio, [25, 50, 75])
            if math.prod(grid) > 1:
                ratios.append(middle)
            name, pixels = model, "x".join(map(str, shape[1:]))
            medians = {key: 1000 * float(np.median(value)) for key, value in times.items()}
            lines.append(
                f"| {name} | {pixels} | {math.prod(grid)} | {batch} | {precision} | {medians['global']:.1f} | "
                f"{medians['loop']:.1f} | {medians['fused']:.1f} | {middle:.2f} [{low:.2f}, {high:.2f}] | "
                f"{medians['global'] / medians['fused']:.2f} |"
            )
            print(lines[-1], flush=True)
    lines += ["", f"Geometric mean of loop / fused over N > 1: {math.exp(np.mean(np.log(ratios))):.2f}."]
    write(arguments.out, "fusion", lines, DEVICE)


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if __name__ == "__main__":
    main()

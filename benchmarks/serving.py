"""What does it cost to decide, fused, looped, and exported? Inference in float32, all of a CNN-DNN, raw pixels in.

    python benchmarks/serving.py [--repeats 15]

Random images of CIFAR-10's shape and networks that were not trained (the numbers do not matter). Each way is called
once before; then all ways take turns, so that a slow moment of the machine hits each of them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, in_turns, write

from ddcnn.aggregation import Dense
from ddcnn.decomposition import Grid
from ddcnn.exporting import FORMATS
from ddcnn.exporting.pieces import together
from ddcnn.models import Normalization, build, width_rule
from ddcnn.network import CNNDNN

CPU = torch.device("cpu")
WAYS = ("fused", "looped", "torch-export", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# What it costs to decide: fused, looped, exported",
        "",
        describe_machine(f"python benchmarks/serving.py --repeats {arguments.repeats}", CPU),
        "",
        "Milliseconds per batch: median [min, max].",
        "",
        f"| model | N | batch | {' | '.join(WAYS)} |",
        f"|---|---:|---:|{'---:|' * len(WAYS)}",
    ]
    for model in ("resnet20", "vgg9"):
        for grid in ((2, 2), (4, 4)):
            calls, batches = ways(model, grid), (1, 64)
            for batch in batches:
                images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
                with torch.no_grad():
                    times = in_turns({way: partial(call, images) for way, call in calls.items()}, arguments.repeats)
                cells = [_cell(times[way]) for way in WAYS]
                lines.append(f"| {model} | {grid[0] * grid[1]} | {batch} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    write(arguments.out, "serving", lines, CPU)


def ways(model: str, grid: tuple[int, int]) -> dict[str, Callable[[torch.Tensor], object]]:
    cuts, size = Grid(grid), (32, 32)
    width = width_rule(len(cuts))
    modules = [build(model, 3, 10, s.shape, width=width, seed=s.index).eval() for s in cuts.subdomains(size)]
    normalization = Normalization(torch.full((3,), 120.0), torch.full((3,), 60.0))
    last = Dense(len(cuts), 10)
    made: dict[str, Callable[[torch.Tensor], object]] = {
        backend: CNNDNN(cuts, modules, last, image_size=size, normalization=normalization, backend=backend).eval()
        for backend in ("fused", "looped")
    }
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    piece = together(made["looped"], images).pieces[0]
    with torch.no_grad():
        piece(images)
        for name in WAYS[2:]:
            made[name] = FORMATS[name].read(FORMATS[name].write(piece, images, {}), copy.deepcopy(piece))
    return made


def _cell(seconds: np.ndarray) -> str:
    low, middle, high = 1000 * seconds.min(), 1000 * np.median(seconds), 1000 * seconds.max()
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()

"""After how many steps has a recorded training step paid for its recording?

    python benchmarks/recorded.py [--rounds 40] [--out FILE.md]

Forward and backward pass of N fused local CNNs, by their code and as recorded, in turns; and the first recorded pass,
three times, less one that is replayed. The first recording of a process also imports `torch._dynamo`,
as does the making of an optimiser.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, in_turns, write
from not_taken import CLASSES, DEVICE, fused

from ddcnn.decomposition import Grid
from ddcnn.fusion.recorded import Recorded
from ddcnn.models import build, width_rule
from ddcnn.training.precision import PrecisionName, autocast

SHAPES = [
    ("vgg9", (28, 28), (2, 2), 64), ("vgg9", (32, 32), (2, 2), 128), ("resnet20", (32, 32), (2, 2), 128),
    ("resnet20", (32, 32), (4, 4), 100), ("resnet20", (64, 64), (8, 8), 128), ("cnn3d", (32, 32, 32), (2, 2, 2), 8),
]  # fmt: skip
PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")


def never(recorded: Recorded) -> Recorded:
    recorded.after = 2**60
    return recorded


def at_once(recorded: Recorded) -> Recorded:
    recorded.after = 1
    return recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# What recording a training step costs and saves",
        "",
        describe_machine(f"python benchmarks/recorded.py --rounds {options.rounds}", DEVICE),
        "",
        "Milliseconds. Of a pass, forward and backward: the median. Saved: the median of the differences of each turn, "
        "[first, third quartile]. Recording: what it costs, three times; the very first imports torch._dynamo, "
        "as an optimiser does. "
        "Steps: the third cost over what is saved.",
        "",
        "| shape | code | recorded | saved | recording | steps |",
        "|---|---:|---:|---|---|---:|",
    ]
    for name, size, parts, batch in SHAPES:
        subdomains = Grid(parts).subdomains(size)
        channels, width = 3 if len(size) == 2 else 1, width_rule(len(subdomains))
        modules = [build(name, channels, CLASSES, s.shape, width=width, seed=s.index) for s in subdomains]
        x = torch.randn(batch, len(subdomains), channels, *subdomains[0].shape)
        for precision in PRECISIONS:
            shape = f"{name}-{'x'.join(map(str, size))}-N{len(modules)}-{precision}"
            lines.append(f"| {shape} | {row(modules, x, precision, options.rounds)} |")
            print(lines[-1], flush=True)
    write(options.out, "recorded", lines, DEVICE)


def row(modules: list[torch.nn.Module], x: torch.Tensor, precision: PrecisionName, rounds: int) -> str:
    """Return the cells of a line."""
    body = fused(modules).train()

    def run(recorded: Recorded) -> Callable[[], None]:
        def step() -> None:
            body.recorded = recorded
            with autocast(precision, DEVICE):
                body(x).float().square().mean().backward()
            body.zero_grad(set_to_none=True)

        return step

    code = run(never(Recorded(*body._template)))
    code()
    first = []
    for _ in range(3):
        replayed = run(at_once(Recorded(*body._template)))
        start = time.perf_counter()
        replayed()
        first.append(time.perf_counter() - start)
    times = {key: 1000 * value for key, value in in_turns({"code": code, "recorded": replayed}, rounds).items()}
    saved = times["code"] - times["recorded"]
    low, middle, high = np.quantile(saved, (0.25, 0.5, 0.75))
    costs = [1000 * seconds - np.median(times["recorded"]) for seconds in first]
    medians = " | ".join(f"{np.median(values):.1f}" for values in times.values())
    steps = f"{costs[-1] / middle:.0f}" if middle > 0 else "-"
    return f"{medians} | {middle:.1f} [{low:.1f}, {high:.1f}] | {', '.join(f'{c:.0f}' for c in costs)} | {steps}"


if __name__ == "__main__":
    main()

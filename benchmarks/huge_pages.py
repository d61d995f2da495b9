"""What pages of 2 MiB save: a training step with and without ``THP_MEM_ALLOC_ENABLE``, which the command line sets.

    python benchmarks/huge_pages.py [--rounds 5] [--out FILE]

PyTorch reads the variable once, so each turn is a process of its own; with and without take turns. The seconds are the
fastest of several steps of a turn, warm-up excluded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.models import build

VARIABLE = "THP_MEM_ALLOC_ENABLE"
CASES = {
    "resnet20, 128 x 32x32": ("resnet20", 3, (32, 32), 128, 12),
    "resnet20, 32 x 16x16": ("resnet20", 3, (16, 16), 32, 40),
    "vgg9, 32 x 180x180": ("vgg9", 3, (180, 180), 32, 5),
    "cnn3d, 8 x 32x32x32": ("cnn3d", 1, (32, 32, 32), 8, 10),
    "cnn3d, 8 x 64x64x32": ("cnn3d", 1, (64, 64, 32), 8, 5),
    "cnn3d, 4 x 128x128x64": ("cnn3d", 1, (128, 128, 64), 4, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments.child)
        return
    device = torch.device("cpu")
    lines = [
        "# Pages of 2 MiB",
        "",
        describe_machine(f"python benchmarks/huge_pages.py --rounds {arguments.rounds}", device),
        "",
        "A training step (forward, backward), bfloat16, channels last; a process per turn, with and without in turns.",
        "",
        "| network, batch | without (ms) | with (ms) | ratio: median [min, max] | peak memory without, with (MiB) |",
        "|---|---:|---:|---|---:|",
    ]
    for name in CASES:
        turns = [[_turn(name, value) for value in ("0", "1")] for _ in range(arguments.rounds)]
        seconds, memory = np.array(turns).transpose(2, 0, 1)
        ratio = seconds[:, 0] / seconds[:, 1]
        without, with_ = np.median(seconds, 0) * 1e3
        lines.append(
            f"| {name} | {without:.0f} | {with_:.0f} | {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] | "
            f"{np.median(memory[:, 0]):,.0f}, {np.median(memory[:, 1]):,.0f} |"
        )
        print(lines[-1], flush=True)
    write(arguments.out, "huge-pages", lines, device)


def _turn(name: str, value: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", name]
    done = subprocess.run(command, env=os.environ | {VARIABLE: value}, capture_output=True, text=True, check=True)
    seconds, mebibytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, mebibytes


def _child(name: str) -> None:
    model, channels, size, batch, steps = CASES[name]
    layout = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    network = build(model, channels, 10, size).to(memory_format=layout)
    x = torch.rand(batch, channels, *size).contiguous(memory_format=layout)
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(x)
        scores.float().square().mean().backward()
        network.zero_grad()
        seconds.append(time.perf_counter() - start)
    print(json.dumps([min(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


if __name__ == "__main__":
    main()

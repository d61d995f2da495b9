"""What do merged convolutions, and those that see one pixel as linear layers, save of a fused step?

    python benchmarks/merged.py [--rounds 9] [--out FILE.md]

Forward, backward and SGD with momentum; with and without, and the loop, in turns, before anything is recorded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from common import describe_machine, in_turns, write
from not_taken import CLASSES, DEVICE, fused, loop, step

from ddcnn.decomposition import Grid
from ddcnn.fusion import layers, merged
from ddcnn.models import build, width_rule

SHAPES = [
    ("resnet20", (32, 32), (4, 4), 128), ("resnet20", (32, 32), (4, 8), 128), ("resnet20", (32, 32), (8, 8), 128),
    ("resnet20", (180, 180), (4, 4), 8), ("resnet20", (32, 32, 32), (2, 2, 2), 8),
    ("resnet20", (32, 32, 32), (4, 4, 4), 8), ("cnn3d", (32, 32, 32), (2, 2, 2), 8),
    ("vgg9", (32, 32, 32), (4, 4, 4), 8), ("vgg9", (32, 32), (4, 4), 128),
]  # fmt: skip


def without(run: Callable[[], None]) -> Callable[[], None]:
    """Return the same without merging."""

    def plain() -> None:
        with ExitStack() as off:
            off.enter_context(patch.object(merged, "merged_members", lambda *_: 1))
            off.enter_context(patch.object(layers, "_only_tap", lambda *_: None))
            run()

    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# Merged convolutions in a fused step",
        "",
        describe_machine(f"python benchmarks/merged.py --rounds {options.rounds}", DEVICE),
        "",
        "Milliseconds of a training step: median (least).",
        "",
        "| shape | loop | fused, without | fused | without / with | loop / with |",
        "|---|---|---|---|---|---|",
    ]
    for precision in ("bfloat16", "float32"):
        for name, size, parts, batch in SHAPES:
            N, channels = math.prod(parts), 3 if len(size) == 2 else 1
            subdomains = Grid(parts).subdomains(size)
            modules = [build(name, channels, CLASSES, s.shape, width=width_rule(N), seed=s.index) for s in subdomains]
            x = torch.randn(batch, N, channels, *subdomains[0].shape)
            networks = loop(modules), fused(modules), fused(modules)
            turns, plain, merging = (step(network, network, x, precision) for network in networks)
            times = in_turns({"loop": turns, "without": without(plain), "with": merging}, options.rounds)
            ms = [f"{1000 * np.median(t):.1f} ({1000 * min(t):.1f})" for t in times.values()]
            ratios = [f"{np.median(times[other]) / np.median(times['with']):.2f}" for other in ("without", "loop")]
            shape = f"{name}-{'x'.join(map(str, size))}-N{N}-{precision}"
            lines.append(f"| {' | '.join([shape, *ms, *ratios])} |")
            print(lines[-1], flush=True)
    write(options.out, "merged", lines, DEVICE)


if __name__ == "__main__":
    main()

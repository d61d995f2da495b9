"""N convolutions at once on this machine: grouped, several merged, separate, all merged, or in another layout.

    python benchmarks/convolutions.py [--rounds 7]

Forward and backward, milliseconds, medians; the candidates take turns. Merged: a block-diagonal weight for 2, 4 or 8 of
the N; dense: for all. See docs/decisions/fusion.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, write

from ddcnn.fusion.loop import CHANNELS_LAST
from ddcnn.fusion.merged import merged_convolution, merged_members

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# N, channels in, channels out, pixels per axis, axes
SHAPES = [
    (4, 3, 16, 16, 2), (4, 8, 8, 16, 2), (4, 16, 16, 16, 2), (4, 16, 32, 8, 2), (4, 32, 32, 8, 2), (4, 64, 64, 4, 2),
    (16, 3, 4, 8, 2), (16, 4, 4, 8, 2), (16, 4, 8, 4, 2), (16, 8, 8, 8, 2), (16, 8, 8, 4, 2), (16, 16, 16, 4, 2),
    (32, 6, 6, 8, 2), (64, 2, 2, 4, 2), (64, 2, 4, 2, 2), (64, 4, 4, 2, 2), (64, 8, 8, 1, 2),
    (8, 4, 4, 16, 3), (8, 8, 8, 8, 3), (64, 2, 2, 8, 3), (64, 4, 4, 4, 3),
]  # fmt: skip
BATCH, KERNEL = {2: 128, 3: 8}, 3
MERGED = (2, 4, 8)
COLUMNS = ("grouped", *(f"merged {several}" for several in MERGED), "dense", "separate", "channels first")


def candidates(N, C, K, pixels, axes, dtype):
    x = torch.randn(BATCH[axes], N * C, *(pixels,) * axes, dtype=dtype, device=DEVICE)
    x = x.to(memory_format=CHANNELS_LAST[axes + 2]).requires_grad_()
    weight = torch.randn(N * K, C, *(KERNEL,) * axes, dtype=dtype, device=DEVICE).requires_grad_()
    padding = KERNEL // 2
    convolve = {2: F.conv2d, 3: F.conv3d}[axes]
    options = ([1] * axes, [padding] * axes, [1] * axes)

    def grouped():
        return convolve(x, weight, padding=padding, groups=N)

    def merged(several):
        return lambda: merged_convolution(x, weight, None, *options, N, several)

    def separate():
        pairs = zip(x.chunk(N, 1), weight.chunk(N, 0), strict=True)
        return torch.cat([convolve(part, own, padding=padding) for part, own in pairs], 1)

    def channels_first():
        return convolve(x.contiguous(memory_format=torch.contiguous_format), weight, padding=padding, groups=N)

    def step(function):
        def run():
            y = function()
            y.backward(torch.ones_like(y))
            x.grad = weight.grad = None
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    every = {"grouped": grouped, "separate": separate, "dense": merged(N), "channels first": channels_first}
    every |= {f"merged {several}": merged(several) for several in MERGED if several < N}
    return {name: step(function) for name, function in every.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    lines = [
        "# N convolutions at once",
        "",
        describe_machine(f"python benchmarks/convolutions.py --rounds {rounds}", DEVICE),
        "",
        f"Forward and backward, ms, medians; batch {BATCH[2]}, of volumes {BATCH[3]}; kernel {KERNEL}. Taken: how many",
        "`ddcnn.fuse` merges.",
        "",
        f"| N | channels | pixels | precision | {' | '.join(COLUMNS)} | taken |",
        "|" + "---|" * (len(COLUMNS) + 5),
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for N, C, K, pixels, axes in SHAPES:
            times = in_turns(candidates(N, C, K, pixels, axes, dtype), rounds)
            cells = " | ".join(f"{1000 * np.median(times[c]):.2f}" if c in times else "-" for c in COLUMNS)
            precision, image = str(dtype).removeprefix("torch."), "x".join([str(pixels)] * axes)
            taken = merged_members(N, max(C, K), dtype)
            lines.append(f"| {N} | {C} to {K} | {image} | {precision} | {cells} | {taken} |")
            print(lines[-1], flush=True)
    write(None, "convolutions", lines, DEVICE)


if __name__ == "__main__":
    main()

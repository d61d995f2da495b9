"""N convolutions at once on this machine: grouped, separate, dense with a block-diagonal weight, or in another layout.

    python benchmarks/convolutions.py [--rounds 7]

Forward and backward, milliseconds, medians; the candidates take turns. See docs/decisions/fusion.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, write

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# N, channels in, channels out, pixels per axis
SHAPES = [
    (4, 3, 16, 16), (4, 16, 16, 16), (4, 16, 32, 8), (4, 32, 32, 8), (4, 32, 64, 4), (4, 64, 64, 4),
    (16, 8, 8, 8), (16, 16, 16, 4),
]  # fmt: skip
BATCH, KERNEL = 64, 3


def candidates(N, C, K, pixels, dtype):
    x = torch.randn(BATCH, N * C, pixels, pixels, dtype=dtype, device=DEVICE)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(N * K, C, KERNEL, KERNEL, dtype=dtype, device=DEVICE).requires_grad_()
    padding = KERNEL // 2

    def grouped():
        return F.conv2d(x, weight, padding=padding, groups=N)

    def separate():
        pairs = zip(x.chunk(N, 1), weight.chunk(N, 0), strict=True)
        return torch.cat([F.conv2d(part, own, padding=padding) for part, own in pairs], 1)

    def dense():
        blocks = weight.view(N, K, C, KERNEL, KERNEL).permute(1, 2, 3, 4, 0)
        whole = torch.diagonal_scatter(weight.new_zeros(N, K, N, C, KERNEL, KERNEL), blocks, 0, 0, 2)
        return F.conv2d(x, whole.view(N * K, N * C, KERNEL, KERNEL), padding=padding)

    def channels_first():
        return F.conv2d(x.contiguous(memory_format=torch.contiguous_format), weight, padding=padding, groups=N)

    def step(function):
        def run():
            y = function()
            y.backward(torch.ones_like(y))
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    return {function.__name__: step(function) for function in (grouped, separate, dense, channels_first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    lines = [
        "# N convolutions at once",
        "",
        describe_machine(f"python benchmarks/convolutions.py --rounds {rounds}", DEVICE),
        "",
        f"Forward and backward, ms, medians; batch {BATCH}, kernel {KERNEL}.",
        "",
        "| N | channels | pixels | precision | grouped | separate | dense | grouped, channels first |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for N, C, K, pixels in SHAPES:
            times = in_turns(candidates(N, C, K, pixels, dtype), rounds)
            cells = " | ".join(f"{1000 * np.median(seconds):.2f}" for seconds in times.values())
            precision = str(dtype).removeprefix("torch.")
            lines.append(f"| {N} | {C} to {K} | {pixels}x{pixels} | {precision} | {cells} |")
            print(lines[-1], flush=True)
    write(None, "convolutions", lines, DEVICE)


if __name__ == "__main__":
    main()

"""Which convolutions are trained wrongly in bfloat16 on this machine?

    python benchmarks/bfloat16.py [--axes 2 3] [--out FILE.md]

For each shape the gradient of the weight is computed in bfloat16 and in float32, with the same numbers, half of the
kernel as padding, 16 channels in and out. Each in a process of its own, since what writes past its memory may end it.
Wrong is a difference of more than 5 % of the largest gradient, a number that is none, or the end of the process. The
table says which of them `ddcnn` would have refused.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from common import describe_machine, write
from torch import Tensor

from ddcnn.planning.bfloat16 import wrong_in_bfloat16

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SIZES = {1: ((1, 2, 3, 4, 8),), 2: ((1, 2, 3, 5), (1, 2, 3, 5)), 3: ((1, 2, 3, 4, 5, 6), (1, 2, 4), (1, 2, 4))}
TURNS = 3  # what is garbage can look right once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| axes | kernel | stride | shapes | wrong | of these refused | refused but right |", "|--" * 7 + "|"]
    examples: list[str] = []
    for axes, kernel, stride in itertools.product(given.axes, (2, 3, 5), (1, 2)):
        shapes = list(itertools.product(*SIZES[axes]))
        wrong = {shape for shape in shapes if not right(shape, kernel, stride)}
        refused = {s for s in shapes if wrong_in_bfloat16(s, (kernel,) * axes, (stride,) * axes, transposed=False)}
        counts = (len(shapes), len(wrong), len(wrong & refused), len(refused - wrong))
        lines.append(f"| {axes} | {kernel} | {stride} | " + " | ".join(map(str, counts)) + " |")
        print(lines[-1], flush=True)
        missed = ", ".join("x".join(map(str, s)) for s in sorted(wrong - refused))
        examples += [f"Not refused, though wrong: kernel {kernel}, stride {stride}: {missed}."] if missed else []
    device = torch.device("cpu")
    head = ["# Convolutions whose weight has a wrong gradient in bfloat16", ""]
    head += [describe_machine("python benchmarks/bfloat16.py", device), ""]
    write(given.out, "bfloat16", [*head, *lines, *(["", *examples] if examples else [])], device)


def right(size: Sequence[int], kernel: int, stride: int) -> bool:
    """Tell whether the gradient in bfloat16 is that of float32, found in a process of its own."""
    process = os.fork()
    if not process:
        os.close(2)  # what the memory allocator says at its end
        torch.manual_seed(0)
        os._exit(int(not all(_right(size, kernel, stride) for _ in range(TURNS))))
    _, status = os.waitpid(process, 0)
    return status == 0


def _right(size: Sequence[int], kernel: int, stride: int) -> bool:
    axes = len(size)
    torch.full((2**20,), float("nan"))  # freed at once: what is not written shows
    x = torch.randn(4, 16, *size, dtype=torch.bfloat16)
    w = torch.randn(16, 16, *(kernel,) * axes, dtype=torch.bfloat16)
    if axes > 1:
        x = x.contiguous(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[axes])

    def gradient(x: Tensor, w: Tensor) -> Tensor:
        w = w.requires_grad_()
        y = CONVOLVE[axes](x, w, stride=stride, padding=kernel // 2)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.bfloat16).view(y.shape).to(y.dtype)
        return torch.autograd.grad((y * weights).sum(), w)[0].float()

    found, expected = gradient(x, w), gradient(x.float(), w.detach().float())
    return bool((found - expected).abs().max() < 0.05 * expected.abs().max())


if __name__ == "__main__":
    main()

"""N small 3-D convolutions: which form is the fastest? Forward and backward of the layers of ``cnn3d`` and ResNet20.

    python benchmarks/volumes.py [--budget 2] [--precision bfloat16] [--out FILE.md]

The forms, all exact:

- loop: N convolutions, each on its own tensor, channels last;
- grouped: one convolution with N groups, channels last: what fusing does;
- grouped, first: the same, channels first;
- planes: a sum of 2-D grouped convolutions, one per depth of the kernel, on all slices;
- depth as channels: one 2-D grouped convolution whose input channels are those of neighbouring slices;
- matrix: unfolded, one sample at a time, and a batched matrix product; the backward pass unfolds again.

The input is given in the layout that a form wants, so that only the convolution counts. They take turns; the table
tells the shortest time of each, because whatever else the machine does only ever adds time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, write
from torch import Tensor

from ddcnn.models import width_rule

CPU = torch.device("cpu")
LAST = torch.channels_last_3d
LAYERS = {  # channels in and out before the width rule (0: a grey image), pixels along each axis
    "cnn3d": ((0, 64, 32), (64, 64, 16), (64, 128, 8), (128, 256, 4)),
    "resnet20": ((0, 16, 16), (16, 16, 16), (32, 32, 8), (64, 64, 4)),
}
CASES = (("cnn3d", 8, 4), ("cnn3d", 32, 2), ("resnet20", 8, 8))  # network, N, batch
FORMS = ("loop", "grouped", "grouped, first", "planes", "depth as channels", "matrix")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of counted rounds per layer")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"python benchmarks/volumes.py --budget {options.budget:g} --precision {options.precision}"
    lines = [
        "# N small 3-D convolutions, in several forms",
        "",
        describe_machine(command, CPU),
        "",
        f"Milliseconds, forward and backward, {options.precision}; the fastest of a row in bold.",
        "",
        f"| network | N | batch | convolution | pixels | {' | '.join(FORMS)} |",
        f"|---|---:|---:|---|---:|{'---:|' * len(FORMS)}",
    ]
    for network, N, batch in CASES:
        for inside, outside, pixels in LAYERS[network]:
            width = width_rule(N)
            C, K = max(1, round(inside * width)), max(1, round(outside * width))
            runs = forms(N, batch, C, K, pixels, getattr(torch, options.precision))
            times = in_turns(runs, 7, seconds=options.budget, least=2)
            ms = {form: 1000 * float(times[form].min()) for form in FORMS}
            cells = [f"**{v:.1f}**" if v == min(ms.values()) else f"{v:.1f}" for v in ms.values()]
            lines.append(f"| {network} | {N} | {batch} | {C} to {K} | {pixels}^3 | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    write(options.out, f"volumes-{options.precision}", lines, CPU)


def forms(N: int, batch: int, C: int, K: int, pixels: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    learned = C > 1  # of images themselves nobody needs a gradient
    x = torch.randn(batch, N * C, pixels, pixels, pixels).to(dtype)
    gradient = torch.randn(batch, N * K, pixels, pixels, pixels).to(dtype)
    weight = (0.1 * torch.randn(N * K, C, 3, 3, 3)).to(dtype)

    def leaf(value: Tensor, form: torch.memory_format, *, needed: bool = True) -> Tensor:
        return value.detach().clone(memory_format=form).requires_grad_(needed)

    def run(function: Any, form: torch.memory_format) -> Callable[[], object]:
        own, weights, slope = leaf(x, form, needed=learned), leaf(weight, form), gradient.contiguous(memory_format=form)
        return lambda: function(own, weights, N).backward(slope)

    parts = [leaf(part, LAST, needed=learned) for part in x.chunk(N, 1)]
    weights = [leaf(part, LAST) for part in weight.chunk(N)]
    slopes = [part.contiguous(memory_format=LAST) for part in gradient.chunk(N, 1)]

    def loop() -> None:
        for part, own, slope in zip(parts, weights, slopes, strict=True):
            F.conv3d(part, own, padding=1).backward(slope)

    return {
        "loop": loop,
        "grouped": run(grouped, LAST),
        "grouped, first": run(grouped, torch.contiguous_format),
        "planes": run(planes, LAST),
        "depth as channels": run(depth_as_channels, LAST),
        "matrix": run(matrix, LAST),
    }


def grouped(x: Tensor, weight: Tensor, N: int) -> Tensor:
    return F.conv3d(x, weight, padding=1, groups=N)


def planes(x: Tensor, weight: Tensor, N: int) -> Tensor:
    B, _, D, *_ = x.shape
    padded = F.pad(x, (0, 0, 0, 0, 1, 1))
    parts = [_slices(padded[:, :, k : k + D]) for k in range(3)]
    sums = sum(F.conv2d(part, weight[:, :, k], padding=1, groups=N) for k, part in enumerate(parts))
    return sums.unflatten(0, (B, D)).movedim(1, 2)  # type: ignore[union-attr]


def depth_as_channels(x: Tensor, weight: Tensor, N: int) -> Tensor:
    B, channels, D, *_ = x.shape
    padded = F.pad(x, (0, 0, 0, 0, 1, 1)).unflatten(1, (N, channels // N))
    beside = torch.stack([padded[:, :, :, k : k + D] for k in range(3)], 2).flatten(1, 3)  # (B, N * 3 * C, D, H, W)
    y = F.conv2d(_slices(beside), weight.transpose(1, 2).flatten(1, 2), padding=1, groups=N)
    return y.unflatten(0, (B, D)).movedim(1, 2)


def matrix(x: Tensor, weight: Tensor, N: int) -> Tensor:
    channels = x.shape[1] // N
    apart = x.unflatten(1, (N, channels)).movedim(1, 0).movedim(2, -1)  # (N, B, D, H, W, C)
    flat = weight.unflatten(0, (N, -1)).permute(0, 3, 4, 5, 2, 1).flatten(1, 4)  # (N, 27 * C, K)
    y: Tensor = _Matrix.apply(apart, flat)
    return y.movedim(-1, 2).movedim(0, 1).flatten(1, 2)


class _Matrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return _product(x, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        padded, slope = F.pad(x, (0, 0, 1, 1, 1, 1, 1, 1)), slope.contiguous()
        into = torch.zeros_like(weight)
        for b in range(x.shape[1]):
            into.baddbmm_(_unfolded(padded[:, b]).transpose(1, 2), slope[:, b].flatten(1, 3))
        if not ctx.needs_input_grad[0]:
            return None, into
        turned = weight.unflatten(1, (27, -1)).flip(1).transpose(2, 3).flatten(1, 2)
        return _product(slope, turned), into


def _product(x: Tensor, weight: Tensor) -> Tensor:
    padded = F.pad(x, (0, 0, 1, 1, 1, 1, 1, 1))
    each = [torch.bmm(_unfolded(padded[:, b]), weight).unflatten(1, x.shape[2:5]) for b in range(x.shape[1])]
    return torch.stack(each, 1)


def _unfolded(padded: Tensor) -> Tensor:
    """Return (N, D * H * W, 27 * C) of one sample of each network, (N, D + 2, H + 2, W + 2, C)."""
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # (N, D, H, W, C, 3, 3, 3)
    return windows.movedim(4, -1).flatten(4).flatten(1, 3)


def _slices(x: Tensor) -> Tensor:
    """Return all slices of volumes as images, channels last."""
    return x.movedim(2, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()

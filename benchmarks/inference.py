"""What does it cost to decide? A CNN-DNN on raw images: as trained, for inference, in plain PyTorch, exported.

    python benchmarks/inference.py [--images 10000] [--budget 5] [--out FILE.md]

Random images of CIFAR-10's shape and networks that were not trained (the numbers do not matter). The ways:

- train: the forward pass of the training, fused, which keeps what a backward pass would need;
- plain: the local CNNs in a Python loop, ``eval()`` and ``torch.inference_mode()``, in the default layout;
- eval: ``CNNDNN`` as it is loaded, fused, in eval mode, without gradients;
- inference: ``CNNDNN.for_inference``: batch norm folded into convolutions, the faster of fused and looped;
- bfloat16: the same under autocast, for comparison; ddcnn decides in float32;
- onnx: the file of ``ddcnn export --format onnx``, in ONNX Runtime with as many threads.

Each way is called once before; then all take turns, so that a slow moment of the machine hits each of them. For batches
of one image, 100 calls are a turn.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, in_turns, write
from torch import nn

from ddcnn.aggregation import Dense
from ddcnn.decomposition import Grid
from ddcnn.exporting import FORMATS
from ddcnn.exporting.pieces import together
from ddcnn.models import Normalization, build, width_rule
from ddcnn.network import CNNDNN

CPU = torch.device("cpu")
WAYS = ("train", "plain", "eval", "inference", "bfloat16", "onnx")
BATCHES = (1, 32, 500)
Way = Callable[[torch.Tensor], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="the time for so many is told")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds of counted rounds per row")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"python benchmarks/inference.py --images {options.images} --budget {options.budget:g}"
    lines = [
        "# What it costs to decide",
        "",
        describe_machine(command, CPU),
        "",
        f"Seconds for {options.images:,} images, in batches: median of the turns; the fastest way of a row in bold.",
        'The ways are described in `benchmarks/inference.py`; "runs" is how the inference form runs.',
        "",
        f"| model | N | batch | {' | '.join(WAYS)} | train / inference | plain / inference | onnx / inference | runs |",
        f"|---|---:|---:|{'---:|' * len(WAYS)}---:|---:|---:|---|",
    ]
    for model in ("resnet20", "vgg9"):
        for grid in ((2, 2), (4, 4)):
            made, reason = ways(model, grid)
            for batch in BATCHES:
                images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
                calls = max(1, 100 // batch)
                runs = {way: partial(_repeat, call, images, calls) for way, call in made.items()}
                if batch == 1:
                    del runs["train"]  # batch norm cannot measure on one image
                times = in_turns(runs, 15, seconds=options.budget)
                lines.append(_line([model, grid[0] * grid[1], batch], times, options.images / (batch * calls), reason))
                print(lines[-1], flush=True)
    write(options.out, "inference", lines, CPU)


def ways(model: str, grid: tuple[int, int]) -> tuple[dict[str, Way], str]:
    cuts, size = Grid(grid), (32, 32)
    width = width_rule(len(cuts))
    modules = [build(model, 3, 10, s.shape, width=width, seed=s.index).eval() for s in cuts.subdomains(size)]
    normalization = Normalization(torch.full((3,), 120.0), torch.full((3,), 60.0))
    parts: dict[str, Any] = {"image_size": size, "normalization": normalization}
    images = torch.randint(0, 256, (500, 3, 32, 32), dtype=torch.uint8)
    fused, looped = (CNNDNN(cuts, modules, Dense(len(cuts), 10), backend=b, **parts) for b in ("fused", "looped"))
    form = fused.for_inference(images, count=len(images) * 20)
    piece = together(looped.eval(), images[:8]).pieces[0]
    with torch.no_grad():
        piece(images[:8])
        onnx = FORMATS["onnx"].read(FORMATS["onnx"].write(piece, images[:8], {}), copy.deepcopy(piece))
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    made: dict[str, Way] = {
        "train": copy.deepcopy(fused).train(),
        "plain": torch.inference_mode()(Plain(cuts, modules, copy.deepcopy(looped.aggregation), normalization)),
        "eval": torch.no_grad()(fused.eval()),
        "inference": torch.inference_mode()(form),
        "bfloat16": torch.inference_mode()(half(form)),
        "onnx": onnx,
    }
    return made, f"{form.local_cnns.backend}"


class Plain(nn.Module):
    """What one writes without ddcnn: cut, loop, softmax, dense network."""

    def __init__(self, cuts: Grid, modules: list[nn.Module], last: nn.Module, normalization: nn.Module) -> None:
        super().__init__()
        self.networks, self.last, self.normalization = nn.ModuleList(modules), last, normalization
        self.subdomains = cuts.subdomains((32, 32))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.normalization(images)
        scores = [network(s.cut(x)) for network, s in zip(self.networks, self.subdomains, strict=True)]
        decision: torch.Tensor = self.last(torch.stack(scores, 1).softmax(2))
        return decision


def _repeat(call: Way, images: torch.Tensor, times: int) -> None:
    for _ in range(times):
        call(images)


def _line(row: list[object], times: dict[str, np.ndarray], turns: float, runs: str) -> str:
    seconds = {way: turns * float(np.median(values)) for way, values in times.items()}
    best = min(seconds.values())
    cells = [_cell(seconds.get(way), best) for way in WAYS]
    against = ("train", "plain", "onnx")  # ratios of the same turns
    ratios = [f"{np.median(times[way] / times['inference']):.2f}" if way in times else "-" for way in against]
    return f"| {' | '.join(map(str, [*row, *cells, *ratios, runs]))} |"


def _cell(seconds: float | None, best: float) -> str:
    if seconds is None:
        return "-"
    return f"**{seconds:.2f}**" if seconds == best else f"{seconds:.2f}"


if __name__ == "__main__":
    main()

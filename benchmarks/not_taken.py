"""Ways to run N local CNNs that were tried: on threads, in halves, captured, compiled. Captured alone was taken.

    python benchmarks/not_taken.py [--rounds 9] [--only TEXT] [--out FILE.md]

Forward, backward and SGD with momentum on random images; the candidates take turns.

loop            one network after the other, all threads in each operator
loop, threads   the same, each network on one of as many Python threads, each of which computes with one
fused           one grouped network, all threads in each operator
halves, threads two fused networks of N / 2, each on a Python thread that computes with one
halves          two fused networks of N / 2, one after the other: half of the activations, which may stay in the cache
captured        the operators that the fused network runs, recorded once by make_fx and replayed: taken, as
                `ddcnn.fusion.recorded` (here without merged convolutions, as is the next)
compiled        what was captured, by torch.compile (Inductor); seconds of the first step behind it

See docs/decisions/fusion.md.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, write
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from ddcnn.decomposition import Grid
from ddcnn.fusion import merged
from ddcnn.fusion.body import StackedBody
from ddcnn.fusion.loop import LoopBody
from ddcnn.models import build, width_rule
from ddcnn.training.precision import autocast

DEVICE = torch.device("cpu")
THREADS = torch.get_num_threads()
SHAPES = [
    ("vgg9", (32, 32), (2, 2), 128), ("resnet20", (32, 32), (2, 2), 128), ("resnet20", (32, 32), (4, 4), 128),
    ("cnn3d", (32, 32, 32), (2, 2, 2), 8),
]  # fmt: skip
COLUMNS = ("loop", "loop, threads", "fused", "halves, threads", "halves", "captured", "compiled")
CLASSES = 10


def loop(modules: Sequence[nn.Module]) -> nn.Module:
    return LoopBody([copy.deepcopy(module) for module in modules], channels_last=True)


def fused(modules: Sequence[nn.Module]) -> nn.Module:
    return StackedBody(modules, "fused")


class Parts(nn.Module):
    """Equal parts of the networks, one after the other."""

    def __init__(self, modules: Sequence[nn.Module], count: int, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        size = len(modules) // count
        self.bodies = nn.ModuleList(make(modules[n * size : (n + 1) * size]) for n in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        return torch.cat([body(part) for body, part in zip(self.bodies, x.chunk(len(self.bodies), 1), strict=True)], 1)


class Threaded(Parts):
    """The same, each part on a Python thread, forward and backward."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pool = ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,))
        list(self.pool.map(time.sleep, [0.1] * THREADS))
        self.own = [list(body.parameters()) for body in self.bodies]

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        return _OnThreads.apply(self, x, *(p for own in self.own for p in own))  # type: ignore[no-any-return]

    def run(self, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """Apply a function to each part's arguments, on threads that compute with one."""
        torch.set_num_threads(1)
        results = list(self.pool.map(function, *arguments))
        torch.set_num_threads(THREADS)
        return results


class _OnThreads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Threaded, x: Tensor, *_: Tensor) -> Tensor:  # type: ignore[override]
        enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def one(body: nn.Module, part: Tensor) -> Tensor:
            with torch.enable_grad(), torch.autocast("cpu", enabled=enabled, dtype=dtype):
                return body(part)  # type: ignore[no-any-return]

        ctx.parts, ctx.scores = parts, parts.run(one, list(parts.bodies), x.chunk(len(parts.bodies), 1))
        return torch.cat([scores.detach() for scores in ctx.scores], 1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        slopes = slope.chunk(len(ctx.scores), 1)
        found = ctx.parts.run(torch.autograd.grad, ctx.scores, ctx.parts.own, slopes)
        return None, None, *(gradient for own in found for gradient in own)


def captured(modules: Sequence[nn.Module], x: Tensor, precision: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return a fused network, and its forward pass as a graph of the operators that it runs in train mode."""
    body = StackedBody(modules, "fused").train()
    stores = [(store, name) for store in (body._parameters, body._buffers) for name in store]
    values = [store[name] for store, name in stores]

    def forward(state: list[Tensor], x: Tensor) -> Tensor:
        for (store, name), value in zip(stores, state, strict=True):
            store[name] = value
        return body(x)  # type: ignore[no-any-return]

    with autocast(precision, DEVICE), enable_python_dispatcher(), patch.object(merged, "merged_members", lambda *_: 1):
        tracer = make_fx(functionalize(forward, remove="mutations"), tracing_mode="fake")
        graph = tracer([value.detach() for value in values], x)
    for (store, name), value in zip(stores, values, strict=True):
        store[name] = value
    return body, lambda x: graph(values, x)


def step(network: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, precision: Any) -> Callable[[], None]:
    """Return a training step."""
    labels = torch.arange(len(x)).remainder(CLASSES).repeat_interleave(x.shape[1])
    rule = torch.optim.SGD(network.train().parameters(), 0.01, 0.9, fused=True)

    def run() -> None:
        with autocast(precision, DEVICE):
            scores = forward(x)
        rule.zero_grad(set_to_none=True)
        F.cross_entropy(scores.float().flatten(0, 1), labels).backward()
        rule.step()

    return run


def measure(name: str, size: tuple[int, ...], parts: tuple[int, ...], batch: int, precision: Any, rounds: int) -> str:
    """Return a row of the table."""
    N, channels = math.prod(parts), 3 if len(size) == 2 else 1
    subdomains = Grid(parts).subdomains(size)
    modules = [build(name, channels, CLASSES, s.shape, width=width_rule(N), seed=s.index).train() for s in subdomains]
    x = torch.randn(batch, N, channels, *subdomains[0].shape)
    networks = {
        "loop": loop(modules),
        "loop, threads": Threaded(modules, N, loop),
        "fused": fused(modules),
        "halves, threads": Threaded(modules, 2, fused),
        "halves": Parts(modules, 2, fused),
    }
    runs = {name: step(network, network, x, precision) for name, network in networks.items()}
    for form in ("captured", "compiled"):
        network, forward = captured(modules, x, precision)
        runs[form] = step(network, forward if form == "captured" else _compiled(forward), x, precision)
    start = time.perf_counter()
    runs["compiled"]()
    compiling = time.perf_counter() - start
    times = {name: np.array(seconds) for name, seconds in in_turns(runs, rounds).items()}
    cells = [f"{1000 * np.median(times[c]):.1f} ({1000 * times[c].min():.1f})" for c in COLUMNS]
    shape = f"{name}-{'x'.join(map(str, size))}-N{N}-{precision}"
    return f"| {shape} | {' | '.join(cells)} | {compiling:.0f} s |"


def _compiled(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    compiled = torch.compile(forward, dynamic=False)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # the casts are in the graph
            return compiled(x)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# Ways to run N local CNNs that were tried",
        "",
        describe_machine(f"python benchmarks/not_taken.py --rounds {options.rounds}", DEVICE),
        "",
        "Milliseconds of a training step: median (least).",
        "",
        f"| shape | {' | '.join(COLUMNS)} | compiling |",
        "|" + "---|" * (len(COLUMNS) + 2),
    ]
    for name, size, parts, batch in SHAPES:
        for precision in ("float32", "bfloat16"):
            if options.only in f"{name}-N{math.prod(parts)}-{precision}":
                lines.append(measure(name, size, parts, batch, precision, options.rounds))
                print(lines[-1], flush=True)
    write(options.out, "not-taken", lines, DEVICE)


if __name__ == "__main__":
    main()

"""How do others train N equal CNNs at once? A step of each of them, and of the chosen backend, in turns.

    python benchmarks/peers.py [--budget 12] [--only TEXT ...] [--hfta FOLDER] [--resume] [--out FILE.md]

The same N local CNNs of `fusion.py`, the same images, forward, backward and SGD with momentum, by:

loop        plain PyTorch, one network after the other, channels last
compiled    the same, each network by torch.compile
ensemble    torch.func: stack_module_state, vmap over functional_call
HFTA        networks of HFTA's operators (github.com/UofT-EcoSystem/hfta), from a checkout in FOLDER; left out without
processes   two processes of one thread, each with half of the networks, plain PyTorch
chosen      what `ddcnn.fuse` chooses

Each row is appended to FILE.jsonl as it is measured, and --resume goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine, in_turns, result_path
from fusion import BATCH, CLASSES, PRECISIONS, Row
from fusion import Candidate as Chosen
from hfta_networks import NETWORKS as HFTA_NETWORKS
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from ddcnn.decomposition import Grid
from ddcnn.models import build, width_rule
from ddcnn.training.precision import autocast

DEVICE = torch.device("cpu")
SHAPES = [("vgg9", (2, 2)), ("vgg9", (4, 4)), ("resnet20", (2, 2)), ("resnet20", (4, 4))]
SIZE = (32, 32)
COLUMNS = ("loop", "compiled", "ensemble", "HFTA", "processes", "chosen")


def networks(row: Row, some: slice = slice(None)) -> list[nn.Module]:
    """Return the local CNNs of a row, or some of them."""
    grid = Grid(row.grid)
    subdomains = grid.subdomains(row.size)[some]
    width = width_rule(len(grid))
    return [build(row.network, 3, CLASSES, s.shape, width=width, seed=s.index).train() for s in subdomains]


def images(row: Row) -> tuple[list[Tensor], Tensor]:
    """Return the subimages of each subdomain, and labels."""
    whole = torch.randn(BATCH[row.size], 3, *row.size)
    parts = [s.cut(whole) for s in Grid(row.grid).subdomains(row.size)]
    return parts, torch.randint(CLASSES, (len(whole),))


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.01, 0.9, fused=True)


def looped(row: Row, compiled: bool = False, some: slice = slice(None)) -> Callable[[], object]:
    """Return a step of the networks in turn."""
    modules, (parts, labels) = networks(row, some), images(row)
    parts = [part.contiguous(memory_format=torch.channels_last) for part in parts[some]]
    forms = [torch.compile(module, dynamic=False) if compiled else module for module in modules]
    optimizers = [optimizer(module.parameters()) for module in modules]

    def step() -> None:
        for network, rule, part in zip(forms, optimizers, parts, strict=True):
            with autocast(row.precision, DEVICE):
                scores = network(part)
            rule.zero_grad(set_to_none=True)
            F.cross_entropy(scores.float(), labels).backward()
            rule.step()

    return step


def stacked(row: Row, forward: Callable[[Tensor], Tensor], parameters: Any, axis: int = 0) -> Callable[[], object]:
    """Return a step of networks that run at once, (N, B, C, *s) -> (N, B, K); N is the given axis of the images."""
    parts, labels = images(row)
    x, rule = torch.stack(parts, axis), optimizer(parameters)

    def step() -> None:
        with autocast(row.precision, DEVICE):
            scores = forward(x)
        rule.zero_grad(set_to_none=True)
        F.cross_entropy(scores.float().flatten(0, 1), labels.repeat(len(scores)), reduction="sum").backward()
        rule.step()

    return step


def ensemble(row: Row) -> Callable[[], object]:
    """Return a step as PyTorch's tutorial of model ensembling does it."""
    modules = networks(row)
    parameters, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    forward = torch.vmap(lambda p, b, x: functional_call(modules[0], (p, b), (x,)), randomness="different")
    return stacked(row, lambda x: forward(parameters, buffers, x), parameters.values())


def hfta(row: Row) -> Callable[[], object]:
    """Return a step of a network that is written with HFTA's operators."""
    N = math.prod(row.grid)
    size = tuple(n // parts for n, parts in zip(row.size, row.grid, strict=True))
    network = HFTA_NETWORKS[row.network](N, CLASSES, size, width_rule(N)).train()
    return stacked(row, network, network.parameters(), axis=1)


class Processes:
    """Two processes of one thread, each with half of the networks; a call is a step of both."""

    def __init__(self, row: Row) -> None:
        half = math.prod(row.grid) // 2
        command = [sys.executable, __file__, "--worker", json.dumps([row.network, row.grid, row.precision])]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.workers = [
            subprocess.Popen([*command, f"{n * half}:{(n + 1) * half}"], stdin=-1, stdout=-1, text=True, env=env)
            for n in range(2)
        ]

    def __call__(self) -> None:
        for worker in self.workers:
            worker.stdin.write("\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
        for worker in self.workers:
            if not worker.stdout.readline():  # type: ignore[union-attr]
                raise RuntimeError("a worker ended")

    def close(self) -> None:
        for worker in self.workers:
            worker.stdin.close()  # type: ignore[union-attr]
            worker.stdout.close()  # type: ignore[union-attr]
            worker.wait()


def work(row: Row, some: slice) -> None:
    """Do a step for each line of the input."""
    step = looped(row, some=some)
    for _ in sys.stdin:
        step()
        print("done", flush=True)


def measure(row: Row, budget: float, *, with_hfta: bool) -> dict[str, Any]:
    """Return the seconds of all peers."""
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "loop": lambda: looped(row),
        "compiled": lambda: looped(row, compiled=True),
        "ensemble": lambda: ensemble(row),
        "processes": lambda: Processes(row),
        "chosen": lambda: Chosen(row, "auto"),
    }
    if with_hfta:
        makers["HFTA"] = lambda: hfta(row)
    candidates, missing = {}, {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
            candidates[name]()
        except (RuntimeError, ImportError, NotImplementedError) as error:
            candidates.pop(name, None)
            missing[name] = str(error).splitlines()[0]
    try:
        times = in_turns(candidates, 15, seconds=budget)
    finally:
        if isinstance(processes := candidates.get("processes"), Processes):
            processes.close()
    seconds = {name: list(values) for name, values in times.items()}
    backend = candidates["chosen"].backend  # type: ignore[attr-defined]
    return {"name": row.name, "seconds": seconds, "missing": missing, "backend": backend}


def line(result: dict[str, Any]) -> str:
    """Return a row of the table: milliseconds, and how much faster the chosen backend is."""
    seconds = {name: np.array(values) for name, values in result["seconds"].items()}
    ms = [f"{1000 * np.median(seconds[c]):.1f}" if c in seconds else "-" for c in COLUMNS]
    ratios = [
        f"{np.median(seconds[c] / seconds['chosen']):.2f}" if c in seconds else "-" for c in COLUMNS if c != "chosen"
    ]
    return "| " + " | ".join([result["name"], *ms, *ratios, result["backend"]]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=12.0, help="seconds of counted rounds per row")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--hfta", type=Path, help="a checkout of HFTA")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in FILE.jsonl")
    parser.add_argument("--out", type=Path, default=result_path("peers", DEVICE))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        network, grid, precision = json.loads(options.worker[0])
        first, last = map(int, options.worker[1].split(":"))
        work(Row(network, SIZE, tuple(grid), precision), slice(first, last))
        return
    if options.hfta:
        sys.path.insert(0, str(options.hfta))
    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
    log = options.out.with_suffix(".jsonl")
    if not options.resume:
        log.unlink(missing_ok=True)
    done = [json.loads(text) for text in log.read_text("utf-8").splitlines()] if log.exists() else []
    for network, grid in SHAPES:
        for precision in PRECISIONS:
            row = Row(network, SIZE, grid, precision)
            if not any(text in row.name for text in options.only) or row.name in {result["name"] for result in done}:
                continue
            done.append(measure(row, options.budget, with_hfta=options.hfta is not None))
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(line(done[-1]), flush=True)
    head = ["shape", *(f"{c} ms" for c in COLUMNS), *(f"{c} / chosen" for c in COLUMNS if c != "chosen"), "chosen"]
    flags = " --hfta FOLDER" if options.hfta else ""
    missing = [f"- Not measured: {r['name']} {c} ({why})." for r in done for c, why in r["missing"].items()]
    lines = [
        "# Others that train N equal CNNs at once, on the same work",
        "",
        describe_machine(f"python benchmarks/peers.py --budget {options.budget:g}{flags}", DEVICE),
        "",
        f"A training step at batch {BATCH[SIZE]}. Milliseconds: medians. Ratios: medians of the turns; above 1 the",
        "chosen backend is faster. Compiling is not counted.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *map(line, done),
        "",
        *missing,
    ]
    options.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()

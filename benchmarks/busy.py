"""The demo beside another OpenMP program on the same cores: what it takes, and what helps.

    python benchmarks/busy.py [--epochs 1] [--rounds 1] [--images N] [--ways "as it is;..."|all] [--out FILE]

The job is `make demo`'s command with fewer epochs. It runs quiet, beside another program, and quiet again, in
processes of its own; the other program multiplies matrices and convolves with a thread per core, in PyTorch's default
environment, where threads that wait spin. What the job measures to decide on precision and backend is measured anew
each time. Target: beside the other program at most three times the quiet time. One way takes some minutes; all of them,
with what was before, a quarter of an hour or more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.cores import SOME, busy_with_others

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
CORES = len(os.sched_getaffinity(0))
_SPINNING = {"GOMP_SPINCOUNT": "300000"}  # of libgomp where nothing is set
WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "as it is": ({}, []),
    "all threads, spinning (as it was)": (_SPINNING, ["--threads", str(CORES)]),
    "all threads, passive": ({"OMP_WAIT_POLICY": "passive"}, ["--threads", str(CORES)]),
    "half the threads, spinning": (_SPINNING, ["--threads", str(max(1, CORES // 2))]),
    "half the threads, passive": ({"OMP_WAIT_POLICY": "passive"}, ["--threads", str(max(1, CORES // 2))]),
}
MOST = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, help="train with so many only")
    parser.add_argument("--ways", default="as it is", help="all, or some of: " + "; ".join(WAYS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--other", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.other:
        _compute()
        return
    ways = list(WAYS) if arguments.ways == "all" else arguments.ways.split(";")
    command = f"python benchmarks/busy.py --epochs {arguments.epochs} --rounds {arguments.rounds}"
    job = f"ddcnn compare --data mnist5k --model vgg9 --grid 2x2 --epochs {arguments.epochs}"
    if arguments.images:
        command, job = f"{command} --images {arguments.images}", f"{job} --limit-train {arguments.images}"
    device, others = torch.device("cpu"), busy_with_others() or 0.0
    lines = [
        "# Beside another OpenMP program on the same cores",
        "",
        describe_machine(command + ("" if arguments.ways == "as it is" else f' --ways "{arguments.ways}"'), device),
        "",
        f"`{job}`:",
        f"a process per figure, start and report included, median of {arguments.rounds}. The other program has {CORES} "
        "threads that spin where",
        f"they wait. Cores that others kept busy when it began: {others:.1f}.",
        "",
        "| way | quiet (s) | beside (s) | quiet again (s) | beside / quiet |",
        "|---|---:|---:|---:|---:|",
    ]
    kept = []
    for way in ways:
        rounds = [_round(way, job) for _ in range(arguments.rounds)]
        before, beside, after = np.median(np.array(rounds), 0)
        ratio = beside / min(before, after)
        kept += [ratio <= MOST] if way == "as it is" else []
        lines.append(f"| {way} | {before:.1f} | {beside:.1f} | {after:.1f} | {ratio:.1f} |")
        print(lines[-1], flush=True)
    if others >= SOME:
        lines += ["", "The machine was not quiet: the ratios say little."]
    elif kept:
        lines += ["", f"At most {MOST:.0f} times the quiet time: {'kept' if kept[0] else 'NOT KEPT'}."]
    write(arguments.out, "busy", lines, device)


def _round(way: str, job: str) -> tuple[float, float, float]:
    before = _seconds(way, job)
    with _beside():
        beside = _seconds(way, job)
    return before, beside, _seconds(way, job)


def _seconds(way: str, job: str) -> float:
    environment, options = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *job.split(), *options, "--out", f"{folder}/run"]
        start = time.perf_counter()
        done = subprocess.run(
            command, env=_plain() | environment | {"DDCNN_DATA": folder}, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    print(*(line for line in done.stderr.splitlines() if line.startswith("threads")), f"{way}: {seconds:.1f} s")
    return seconds


@contextlib.contextmanager
def _beside() -> Iterator[None]:
    """Run the other program meanwhile."""
    other = subprocess.Popen([sys.executable, __file__, "--other"], stdout=subprocess.PIPE, env=_plain(), text=True)
    assert other.stdout is not None
    other.stdout.readline()  # it has begun
    try:
        yield
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in WAITING}


def _compute() -> None:
    torch.set_num_threads(CORES)
    convolution, images = torch.nn.Conv2d(32, 32, 3, padding=1), torch.randn(64, 32, 28, 28)
    a = torch.randn(256, 256)
    parent, step = os.getppid(), 0
    while os.getppid() == parent:
        convolution(images).square().mean().backward()
        for _ in range(20):
            a = (a @ a).tanh()
        step += 1
        if step == 3:
            print("begun", flush=True)


if __name__ == "__main__":
    main()

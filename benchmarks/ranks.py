"""What does spreading the coherent model over ranks cost? Target: 2 ranks of 1 thread at least 0.9x 1 rank of 2.

    python benchmarks/ranks.py [--model resnet20] [--grids 2x2 4x4] [--ranks 2] [--steps 20] [--rounds 7]

The same training steps (forward, exchange, backward, optimiser) on random images of CIFAR-10's shape, batch 128, in
float32: by one process with as many threads as there are ranks, and by so many processes of one thread each,
connected by gloo. Both are there at once, and take turns: while one computes the other waits without using a core.
Images are whole on every rank, as they are when they are in memory. One round before is a warm-up. The ratio is that of
the medians; above 1 ranks are faster.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.aggregation import Dense
from ddcnn.config import TrainingConfig
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.data.moments import moments
from ddcnn.decomposition import Grid
from ddcnn.engines import RankDistribution, Ranks, joined
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.network import CNNDNN
from ddcnn.training import Distribution, FadingLocalLosses, MemberOptimizer, Step, WholeNetwork

SIZE, K, B = (32, 32), 10, 128
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--grids", nargs="+", default=["2x2", "4x4"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)  # what a process of this benchmark is told to train
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.model, arguments.work, arguments.steps)
        return
    torch.set_num_threads(arguments.ranks)
    command = " ".join(["python benchmarks/ranks.py", *sys.argv[1:]])
    lines = ["# The coherent model over ranks, against one process with as many cores", ""]
    lines += [describe_machine(command, CPU), ""]
    lines += [
        f"| model | N | 1 rank of {arguments.ranks} threads, ms per step: median [min, max] "
        f"| {arguments.ranks} ranks of 1 thread | ratio | numbers received per step |",
        "|---|---|---|---|---|---|",
    ]
    for grid in arguments.grids:
        alone, spread = in_turns(arguments, grid)
        subdomains = len(Grid(tuple(map(int, grid.split("x")))))
        ratio = np.median(alone) / np.median(spread)
        cells = [_cell(alone), _cell(spread), f"{ratio:.2f}", f"{B * subdomains * K:,}"]
        lines.append(f"| {arguments.model} | {subdomains} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    write(arguments.out, "ranks", lines, CPU)


def in_turns(arguments: argparse.Namespace, grid: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the milliseconds per step of one process and of the ranks, round by round."""
    worlds = [_start(arguments, grid, 1, arguments.ranks), _start(arguments, grid, arguments.ranks, 1)]
    times: list[list[float]] = [[], []]
    try:
        for turn in range(arguments.rounds + 1):
            for world, found in zip(worlds, times, strict=True):
                for process in world:
                    _say(process)
                seconds = max(float(_answer(process)) for process in world)
                if turn:
                    found.append(1000 * seconds / arguments.steps)
    finally:
        everyone = [*worlds[0], *worlds[1]]
        for process in everyone:
            process.stdin.close()
        for process in everyone:
            process.wait(60)  # ranks leave together
    return np.array(times[0]), np.array(times[1])


def work(model: str, grid: str, steps: int) -> None:
    """Train so many steps for each line on stdin, and print how long it took."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    with joined("cpu") as ranks:
        torch.set_num_threads(threads)
        step, batches = _training(model, grid, steps, ranks)
        for epoch, _ in enumerate(sys.stdin, 1):
            start = time.perf_counter()
            for batch in batches.shuffled(epoch):
                step(batch)
            print(time.perf_counter() - start, flush=True)


def _training(model: str, grid: str, steps: int, ranks: Ranks) -> tuple[Step, Batches]:
    torch.manual_seed(0)
    decomposition = Grid(tuple(map(int, grid.split("x"))))
    subdomains = decomposition.subdomains(SIZE)
    own, width = ranks.owned(len(subdomains)), width_rule(len(subdomains))
    modules = [build(model, 3, K, subdomains[n].shape, width=width, seed=n) for n in own]
    images = torch.randint(0, 256, (steps * B, 3, *SIZE), dtype=torch.uint8)
    labels = torch.randint(0, K, (len(images),))
    normalization = Normalization.of_moments(moments(images[:1000]), SIZE[0] * SIZE[1])
    local_cnns = LocalCNNs(
        decomposition, modules, image_size=SIZE, indices=own, backend="fused", channels=3, normalization=normalization
    )
    network = WholeNetwork(CNNDNN(decomposition, local_cnns, Dense(len(subdomains), K)), with_local_scores=True).train()
    distribution = Distribution() if ranks.alone else RankDistribution(ranks, len(subdomains))
    optimizer = MemberOptimizer(network, TrainingConfig(lr=0.01), distribution=distribution)
    every, cut = torch.arange(len(images)), local_cnns.subdomains
    batches = Batches(Resident(images), labels, every, B, 0, Augmentation((1,), 4), subdomains=cut)
    return Step(network, optimizer, "float32", FadingLocalLosses(1.0), distribution), batches


def _start(arguments: argparse.Namespace, grid: str, count: int, threads: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--work", grid, "--model", arguments.model, "--steps", str(arguments.steps)]
    return [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def _say(process: subprocess.Popen) -> None:
    process.stdin.write("train\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the benchmark ended with code {process.wait()}")
    return line


def _cell(milliseconds: np.ndarray) -> str:
    return f"{np.median(milliseconds):.1f} [{milliseconds.min():.1f}, {milliseconds.max():.1f}]"


if __name__ == "__main__":
    main()

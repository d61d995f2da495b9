"""What do workers gain, and what do they cost? Also: what do checkpoints cost?

    python benchmarks/engines.py [--rounds 3] [--epochs 4] [--samples 2000] [--no-ray]

1. Two workers of one core against one worker of one core, on the same 16 subdomains (target: 1.9). The workers are
   ready; each round trains from new seeds.
2. The cost of an engine: from its making to its end, less the training itself (target: 5 s for processes, 15 s for
   Ray), and per task (target: 0.2 s).
3. Checkpoints, as they are by default: the time that writing takes, and the whole against the same without (target:
   under 2 % of the time).
4. A model of the time on W workers, checked against one and two, and what it says of 32 workers on 32 subdomains.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, in_turns, write

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.engines import Engine, InProcess, OnRay, Processes
from ddcnn.planning import Setup, decide, prepare
from ddcnn.strategies import StrategyContext
from ddcnn.strategies.local import LocalResult, train_local_cnns
from ddcnn.training import Checkpoints, State, Workspace

DEVICE = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = f"python benchmarks/engines.py --rounds {arguments.rounds} --epochs {arguments.epochs}"
    command += f" --samples {arguments.samples}" + (" --no-ray" if arguments.no_ray else "")
    command += "" if arguments.parts == list(PARTS) else f" --parts {' '.join(arguments.parts)}"
    lines = ["# Engines: what workers gain and cost", "", describe_machine(command, DEVICE), ""]
    scratch = Path(tempfile.mkdtemp())
    try:
        for part in arguments.parts:
            lines += PARTS[part](arguments, scratch)
            print("\n".join(lines[-12:]), flush=True)
    finally:
        shutil.rmtree(scratch)
    write(arguments.out, "engines", lines, DEVICE)


def images(samples: int, size: tuple[int, ...]) -> Dataset:
    """Return noise of two classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (samples, 3, *size), dtype=torch.uint8, generator=generator)
    return Dataset("noise", pixels, torch.arange(samples) % 2, ("a", "b"))


def problem(*, seed: int, grid: str, group: int, epochs: int, samples: int) -> Setup:
    values = {
        "seed": seed,
        "decomposition": {"grid": grid},
        "model": {"name": "resnet20"},
        "training": {"epochs": epochs, "batch_size": 100, "lr": 0.01},
        "compute": {"device": "cpu", "precision": "float32", "backend": "fused", "group": group, "threads": 1},
    }
    return decide(prepare(Config.parse(values), images(samples, (32, 32))), ())[0]


def train_local(setup: Setup, engine: Engine, workspace: Workspace | None = None) -> LocalResult:
    return train_local_cnns(StrategyContext(setup, engine, workspace=workspace))


class Rounds:
    """Trainings that are all new: their seeds and their folders are."""

    def __init__(self, make: Callable[[int], Setup], scratch: Path) -> None:
        self.make, self.scratch, self.number = make, scratch, 0

    def train(self, engine: Engine) -> LocalResult:
        self.number += 1
        p = self.make(self.number)
        folder = self.scratch / f"{id(self)}-{self.number}"
        self.start = time.perf_counter()  # the problem is there
        return train_local(p, engine, Workspace(folder, p.fingerprint))

    def timed(self, engine: Engine) -> float:
        self.train(engine)
        return time.perf_counter() - self.start


def two_workers(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    rounds = Rounds(
        lambda seed: problem(seed=seed, grid="4x4", group=4, epochs=arguments.epochs, samples=arguments.samples),
        scratch,
    )
    found: dict[str, list[float]] = {"one": [], "two": []}
    with Processes(1, threads=1) as one, Processes(2, threads=1) as two:
        for turn in range(arguments.rounds + 1):
            for name, engine in (("one", one), ("two", two)):
                seconds = rounds.timed(engine)
                found[name] += [seconds] if turn else []  # the first is a warm-up
    times = {name: np.array(seconds) for name, seconds in found.items()}
    ratios = times["one"] / times["two"]
    return [
        "## Two workers of one core against one",
        "",
        f"16 subdomains of 32x32 images in tasks of 4, ResNet20, {arguments.samples} images, {arguments.epochs} "
        "epochs:",
        f"{np.median(times['one']):.1f} s against {np.median(times['two']):.1f} s: "
        f"**{np.median(ratios):.2f}** [{ratios.min():.2f}, {ratios.max():.2f}] times as fast.",
        "",
    ]


def costs(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    engines: dict[str, Callable[[], Engine]] = {"processes": lambda: Processes(2, threads=1)}
    if not arguments.no_ray:
        engines["ray"] = lambda: OnRay(2, threads=1)
    rows = ["| engine | start, hand-over, collection, end (s) | per task (s) |", "|---|---|---|"]
    for name, build in engines.items():
        few = [_cost(build, arguments, scratch, group=8) for _ in range(arguments.rounds)]  # 2 tasks
        many = [_cost(build, arguments, scratch, group=1) for _ in range(arguments.rounds)]  # 16 tasks
        each = (np.median(many) - np.median(few)) / 14
        rows.append(f"| {name} | {np.median(few):.1f} [{min(few):.1f}, {max(few):.1f}] | {each:.2f} |")
        print(rows[-1], flush=True)
    return [
        "## What an engine costs",
        "",
        "Two workers, 16 subdomains: the time from the making of the engine to its end, less what its busier worker",
        "trained; with 2 tasks, and what each of 14 more adds.",
        "",
        *rows,
        "",
    ]


def _cost(build: Callable[[], Engine], arguments: argparse.Namespace, scratch: Path, *, group: int) -> float:
    p = problem(seed=0, grid="4x4", group=group, epochs=1, samples=arguments.samples // 4)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    start = time.perf_counter()
    with build() as engine:
        local = train_local(p, engine, Workspace(folder, p.fingerprint))
    whole = time.perf_counter() - start
    after = _without_engine(p, local)
    return whole - local.history.earlier_seconds / 2 - after


def _without_engine(p: Setup, local: LocalResult) -> float:
    """Return the seconds that `train_local` takes when all that is left to do is to assemble what lies there."""
    start = time.perf_counter()
    p.networks.local_cnns(backend="fused")
    for n in range(local.network.members):
        local.network.load_member_state(n, local.network.member_state(n))
    return time.perf_counter() - start


def checkpoints(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    epochs = 5 * arguments.epochs

    def make(seed: int) -> Setup:
        return problem(seed=seed, grid="4x4", group=16, epochs=epochs, samples=arguments.samples // 4)

    rounds = Rounds(make, scratch)
    spent: list[float] = []
    wholes: list[float] = []
    written = Checkpoints.save

    def timed(self: Checkpoints, state: State) -> None:
        start = time.perf_counter()
        written(self, state)
        spent[-1] += time.perf_counter() - start

    def with_() -> None:
        spent.append(0.0)
        start = time.perf_counter()
        Checkpoints.save = timed
        rounds.train(InProcess())
        Checkpoints.save = written
        wholes.append(time.perf_counter() - start)

    def without() -> None:
        rounds.number += 1
        train_local(make(rounds.number), InProcess())

    times = in_turns({"with": with_, "without": without}, arguments.rounds)
    ratios = times["with"] / times["without"] - 1
    shares = (np.array(spent) / np.array(wholes))[1:]  # the first turn is a warm-up

    def percent(values: np.ndarray, form: str) -> str:
        median, least, most = (format(100 * v, form) for v in (np.median(values), values.min(), values.max()))
        return f"{median} % [{least}, {most}]"

    return [
        "## What checkpoints cost",
        "",
        f"16 local CNNs, {epochs} epochs, {np.median(times['without']):.0f} s:",
        f"writing takes **{percent(shares, '.1f')}** of the time.",
        f"With checkpoints against without, from begin to end: {percent(ratios, '+.1f')}.",
        "They are written when the last one took less than 1 % of the time since: more parameters, fewer of them.",
        "",
    ]


def model(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    rounds = Rounds(
        lambda seed: problem(seed=seed, grid="8x4", group=1, epochs=arguments.epochs, samples=arguments.samples // 4),
        scratch,
    )
    with Processes(1, threads=1) as one:
        rounds.train(one)
        local = rounds.train(one)
        measured_one = time.perf_counter() - rounds.start
    alone = np.array([row["seconds"] for row in local.history.rows if row["epoch"] == arguments.epochs])
    fixed = (measured_one - alone.sum()) / len(alone)  # what a task costs beside its training
    with Processes(2, threads=1) as two:
        rounds.train(two)
        measured_two = rounds.timed(two)

    def predicted(workers: int) -> float:
        ends = np.zeros(workers)
        for seconds in alone + fixed:
            ends[ends.argmin()] += seconds
        return float(ends.max())

    rows = ["| workers | predicted (s) | measured (s) | times as fast as one |", "|---:|---:|---:|---:|"]
    for workers in (1, 2, 4, 8, 16, 32):
        seconds = predicted(workers)
        measured = {1: f"{measured_one:.1f}", 2: f"{measured_two:.1f}"}.get(workers, "")
        rows.append(f"| {workers} | {seconds:.1f} | {measured} | {predicted(1) / seconds:.1f} |")
    return [
        "## A model of more workers",
        "",
        f"32 subdomains of 8x4 pixels, one per task, ResNet20, {arguments.samples // 4} images, {arguments.epochs} "
        "epochs;",
        f"a subdomain alone on one core takes {alone.mean():.2f} s [{alone.min():.2f}, {alone.max():.2f}], a task",
        f"{fixed:.2f} s beside that. The model: tasks go in order to the worker that is free first. It is",
        "checked against one and two workers; what more say is computed, not measured. With a worker per subdomain the",
        f"critical path is the slowest subdomain and one task's cost, {alone.max() + fixed:.2f} s, no communication:",
        f"{predicted(1) / predicted(32):.1f} times as fast as one worker.",
        "Published: up to 31 times for 32 subdomains (arXiv 2609.12902).",
        "",
        *rows,
    ]


PARTS = {"two_workers": two_workers, "costs": costs, "checkpoints": checkpoints, "model": model}

if __name__ == "__main__":
    main()

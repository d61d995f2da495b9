"""Is this version as fast as another one? Training loop, fused step and engines, of both, in turns.

    python benchmarks/against.py OTHER_CHECKOUT [--rounds 4] [--parts overhead fusion engines] [--out FILE.md]
    python benchmarks/against.py OTHER_CHECKOUT --parts compare --epochs 6 --data-dir FOLDER

Each round starts `overhead.py`, `fusion.py` and `engines.py` of both checkouts, one after the other, each with the
benchmarks of its own checkout and the packages of this environment; the one that began comes second in the next round,
because a machine drifts. Both are compiled to bytecode first, as installed packages are: where Python is told to write
none (``PYTHONDONTWRITEBYTECODE``), each process of the engines would compile the whole package again. What they write
into their tables is compared. The part ``compare`` is a whole command, from its start to its report: all
strategies on CIFAR-10, ResNet20, 2x2; with the accuracies that it comes to.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, write

HERE = Path(__file__).parents[1]
FUSED = ("resnet20-32x32-N4-float32", "resnet20-32x32-N16-float32", "vgg9-32x32-N16-float32")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
Found = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["overhead", "fusion", "engines"])
    parser.add_argument("--epochs", type=int, default=6, help="of compare")
    parser.add_argument("--limit-train", type=int, help="of compare: so many training images only")
    parser.add_argument("--data-dir", help="of compare: where CIFAR-10 is, or is downloaded to")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    checkouts = {"other": arguments.other.resolve(), "this": HERE}
    for checkout in checkouts.values():
        compileall = [sys.executable, "-m", "compileall", "-q", str(checkout / "src")]
        subprocess.run(compileall, env=_environment(checkout), check=True)
    found: dict[str, Found] = {name: defaultdict(list) for name in checkouts}
    for round_ in range(arguments.rounds):
        for part in arguments.parts:
            for name in sorted(checkouts, reverse=round_ % 2 == 1):
                for key, value in PARTS[part](checkouts[name], arguments):
                    found[name][key].append(value)
                    print(f"{name}: {key}: {value:.2f}", file=sys.stderr, flush=True)
    commit = {name: _commit(checkout) for name, checkout in checkouts.items()}
    device = torch.device("cpu")
    lines = [
        f"# This version ({commit['this']}) against {commit['other']}",
        "",
        describe_machine(
            f"python benchmarks/against.py OTHER --rounds {arguments.rounds} --parts {' '.join(arguments.parts)}"
            + (f" --epochs {arguments.epochs}" if "compare" in arguments.parts else "")
            + (f" --limit-train {arguments.limit_train}" if arguments.limit_train else ""),
            device,
        ),
        "",
        "| what | other: median [min, max] | this | this / other |",
        "|---|---|---|---:|",
    ]
    for key, others in found["other"].items():
        mine = found["this"][key]
        lines.append(f"| {key} | {_spread(others)} | {_spread(mine)} | {np.median(mine) / np.median(others):.2f} |")
    print("\n".join(lines))
    write(arguments.out, "against", lines, device)


def overhead(checkout: Path, _options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield what the loop costs beside the steps, in percent of them."""
    for cells in _table(_run(checkout, "overhead.py", "--images", "2560", "--epochs", "2")):
        if cells[-1][0].isdigit():
            yield f"overhead, %: {cells[0]}, N = {cells[1]}", float(NUMBER.findall(cells[-1])[0])


def fusion(checkout: Path, _options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield the milliseconds of a fused step."""
    for only in FUSED:
        _run(checkout, "fusion.py", "--budget", "1", "--only", only)
        row = json.loads(_scratch().with_suffix(".jsonl").read_text().splitlines()[-1])
        yield f"fused step, ms: {only}", 1000 * float(np.median(row["seconds"]["fused"]))


def engines(checkout: Path, _options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield what an engine costs in seconds, and how many times as fast two workers are as one."""
    text = _run(checkout, "engines.py", "--rounds", "1", "--epochs", "2", "--parts", "two_workers", "costs")
    one, two, ratio = re.findall(r"^([\d.]+) s against ([\d.]+) s: \*\*([\d.]+)\*\*", text, re.MULTILINE)[0]
    yield "a training by one worker, s", float(one)
    yield "a training by two workers, s", float(two)
    yield "two workers, times as fast as one", float(ratio)
    for name, whole, each in (cells for cells in _table(text) if cells[0] in ("processes", "ray")):
        yield f"engine {name}, s", float(NUMBER.findall(whole)[0])
        yield f"engine {name}, s per task", float(each)


def compare(checkout: Path, options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield the seconds of a whole ``ddcnn compare``, and its accuracies in percent."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "ddcnn",
            "compare",
            "--data",
            "cifar10",
            "--model",
            "resnet20",
            "--grid",
            "2x2",
        ]
        command += ["--epochs", str(options.epochs), "--out", str(out)]
        if options.limit_train:
            command += ["--limit-train", str(options.limit_train)]
        if options.data_dir:
            command += ["--data-dir", options.data_dir]
        start = time.perf_counter()
        subprocess.run(command, env=_environment(checkout), check=True, stdout=subprocess.DEVNULL)
        yield f"compare, {options.epochs} epochs, s", time.perf_counter() - start
        for row in json.loads((out / "comparison.json").read_text())["strategies"]:
            yield f"test accuracy, %: {row['name']}", 100 * row["test_accuracy"]


def _environment(checkout: Path) -> dict[str, str]:
    """Return the environment of a process of that checkout, whose bytecode is kept for the next."""
    kept = Path(tempfile.gettempdir()) / f"against-bytecode-{os.getpid()}"
    others = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return others | {"PYTHONPATH": str(checkout / "src"), "PYTHONPYCACHEPREFIX": str(kept)}


def _scratch() -> Path:
    return Path(tempfile.gettempdir()) / f"against-{os.getpid()}.md"


def _run(checkout: Path, script: str, *options: str) -> str:
    out = _scratch()
    for old in (out, out.with_suffix(".jsonl")):
        old.unlink(missing_ok=True)
    command = [sys.executable, str(checkout / "benchmarks" / script), *options, "--out", str(out)]
    subprocess.run(command, env=_environment(checkout), check=True, stdout=subprocess.DEVNULL)
    return out.read_text()


def _table(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and "---" not in line:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


PARTS: dict[str, Callable[[Path, argparse.Namespace], Iterator[tuple[str, float]]]] = {
    "overhead": overhead,
    "fusion": fusion,
    "engines": engines,
    "compare": compare,
}

if __name__ == "__main__":
    main()

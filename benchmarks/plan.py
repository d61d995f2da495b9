"""Is a plan right? Predicted time and memory of one epoch of each stage, against what it then takes.

    python benchmarks/plan.py

Each shape is planned and trained in a process of its own, by `ddcnn plan --verify`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from common import describe_machine, write

SHAPES = {
    "MNIST, VGG9, 2x2": ["--data", "mnist5k", "--model", "vgg9", "--grid", "2x2"],
    "MNIST, VGG9, interleaved 2x2": ["--data", "mnist5k", "--model", "vgg9", "--decomposition", "interleaved:2x2"],
    "CIFAR-10, ResNet20, 2x2": ["--data", "cifar10", "--model", "resnet20", "--grid", "2x2"],
    "CIFAR-10, ResNet20, 4x4": ["--data", "cifar10", "--model", "resnet20", "--grid", "4x4"],
    "phantom 64x64x32, cnn3d, 2x2x2": [
        *("--data", "phantom:size=64x64x32,n=100", "--model", "cnn3d", "--grid", "2x2x2", "--batch-size", "auto")
    ],
}
FEW = {"cifar10": ["--limit-train", "2560", "--limit-val", "500", "--set", "data.limit_test=500"]}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), help="some of: " + "; ".join(SHAPES))
    parser.add_argument("--data-dir", help="where CIFAR-10 is, or is downloaded to")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/plan-HARDWARE-DATE.md")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: dict[str, list[dict[str, Any]]] = {}
    for shape in arguments.shapes:
        rows[shape] = _verified(SHAPES[shape], arguments.data_dir)
        write(arguments.out, "plan", _lines(rows, describe_machine("python benchmarks/plan.py", device)), device)


def _verified(options: list[str], folder: str | None) -> list[dict[str, Any]]:
    few = next((more for data, more in FEW.items() if data in options), [])
    few = [*few, "--data-dir", folder] if few and folder else few
    command = [sys.executable, "-m", "ddcnn", "plan", *options, *few, "--verify", "--json", "--quiet"]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[
        "verified"
    ]
    return found


def _lines(rows: dict[str, list[dict[str, Any]]], about: str) -> list[str]:
    lines = [
        "# Plans: predicted against measured",
        "",
        about,
        "",
        "One epoch of each stage, predicted from a few steps and then trained. Ratios are predicted / measured; 1 is",
        "right. Training images: MNIST 3,600, CIFAR-10 2,560, phantom 72. Peak memory is that of the whole process.",
        "",
        "| shape | stage | predicted (s) | measured (s) | ratio | predicted (MiB) | measured (MiB) | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for shape, stages in rows.items():
        lines += [f"| {shape} | {stage['name']} | {_cells(stage)} |" for stage in stages]
        lines.append(f"| {shape} | **all** | {_cells(_sum(stages))} |")
    return lines


def _sum(stages: list[dict[str, Any]]) -> dict[str, Any]:
    total = {name: sum(stage[name] for stage in stages) for name in ("predicted_seconds", "measured_seconds")}
    for name in ("predicted_peak", "measured_peak"):
        total[name] = max((stage[name] or 0 for stage in stages), default=0) or None
    return total


def _cells(row: dict[str, Any]) -> str:
    seconds = row["predicted_seconds"], row["measured_seconds"]
    cells = [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", f"{seconds[0] / seconds[1]:.2f}"]
    peaks = row["predicted_peak"], row["measured_peak"]
    if None in peaks:
        return " | ".join([*cells, "", "", ""])
    return " | ".join([*cells, *(f"{peak / 2**20:.0f}" for peak in peaks), f"{peaks[0] / peaks[1]:.2f}"])


if __name__ == "__main__":
    main()

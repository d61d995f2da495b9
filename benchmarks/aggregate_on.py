"""What should the DNN learn from? Validation accuracy of the CNN-DNN for train, holdout and crossfit.

    python benchmarks/aggregate_on.py [--data mnist5k] [--seeds 5] [--set training.epochs=8 ...] --out FILE

The choice is made on the validation split, which is carved from the training data; test images are not looked at.
Average and vote of the same local CNNs stand beside it, because holdout leaves the local CNNs fewer images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.config import Config, assign
from ddcnn.engines import InProcess
from ddcnn.experiments.decisions import judge
from ddcnn.planning import decide, prepare
from ddcnn.strategies import StrategyContext
from ddcnn.strategies.local import aggregate, train_local_cnns

CHOICES = ("train", "holdout", "crossfit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    values: dict[str, Any] = {}
    for assignment in arguments.assignments:
        assign(values, assignment)
    command = " ".join(
        ["python benchmarks/aggregate_on.py", f"--seeds {arguments.seeds}"]
        + [f"--set {a}" for a in arguments.assignments]
    )
    lines = [
        "# What the DNN learns from",
        "",
        describe_machine(command, torch.device("cpu")),
        "",
        f"Validation accuracy, mean and standard deviation over {arguments.seeds} seeds; seconds of the local and the "
        "DNN stage.",
        "",
        "| aggregate_on | average | vote | CNN-DNN | CNN-DNN - average, per seed | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for choice in CHOICES:
        found = np.array([measure(values, choice, seed) for seed in range(arguments.seeds)])
        mean, spread = found.mean(0), found.std(0, ddof=1) if len(found) > 1 else found[0] * 0
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(mean[:3], spread[:3], strict=True)]
        gains = " ".join(f"{g:+.3f}" for g in found[:, 2] - found[:, 0])
        lines.append(f"| {choice} | {' | '.join(cells)} | {gains} | {mean[3]:.0f} |")
        print(lines[-1], flush=True)
    write(arguments.out, "aggregate-on", lines, torch.device("cpu"))


def measure(values: dict[str, Any], choice: str, seed: int) -> tuple[float, float, float, float]:
    aggregation = values.get("aggregation", {}) | {"aggregate_on": choice}
    config = Config.parse(values | {"seed": seed, "aggregation": aggregation})
    setup = decide(prepare(config), ())[0]
    context = StrategyContext(setup, InProcess())
    local = train_local_cnns(context)
    results = [aggregate(context, local, name) for name in ("average", "vote", "dense")]
    return (*(judge(setup, result).accuracy["validation"] for result in results), results[-1].seconds)


if __name__ == "__main__":
    main()

"""What should local CNNs hand over? The same frozen local CNNs under every aggregation that learns.

    python benchmarks/handover.py [--data cifar10] [--seeds 3] [--aggregations dense attention gated]
        [--set training.epochs=6 ...] --out FILE

For each seed the local CNNs are trained once. What they hand over is computed once, and each aggregation learns from
probabilities, their logarithms, logits and penultimate features. Test accuracy, NLL and ECE; seconds of the training of
the aggregation alone; numbers that a subdomain hands over. What a training step of the coherent model costs with each
is the question of ``aggregations.py``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, write

from ddcnn.config import Config, assign
from ddcnn.engines import InProcess
from ddcnn.experiments.decisions import judge
from ddcnn.planning import Setup, decide, prepare
from ddcnn.strategies import StrategyContext
from ddcnn.strategies.local import aggregate, train_local_cnns

FEATURES = ("probability", "log", "logit", "penultimate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--aggregations", nargs="+", default=["dense", "attention", "gated", "sklearn:LogisticRegression"]
    )
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    values: dict[str, Any] = {"data": {"source": arguments.data}}
    for assignment in arguments.assignments:
        assign(values, assignment)
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    device = torch.device("cpu")
    for seed in range(arguments.seeds):
        setup = decide(prepare(_config(values, seed, "dense", "penultimate")), ())[0]
        device = setup.compute.device
        local = train_local_cnns(StrategyContext(setup, InProcess()))
        widths = setup.networks.feature_widths
        for name in ("average", *arguments.aggregations):
            for features in FEATURES if name != "average" else FEATURES[:1]:
                other = _with(setup, _config(values, seed, name, features))
                context = StrategyContext(other, InProcess())
                result = aggregate(context, local, name)
                decisions = judge(other, result)
                handed = max(widths or ()) if features == "penultimate" else other.data.classes
                seconds = sum(stage.seconds for stage in result.stages if stage.name == "dnn")
                row = (
                    decisions.accuracy["test"],
                    decisions.sureness["nll"],
                    decisions.sureness["ece"],
                    seconds,
                    handed,
                )
                found.setdefault((name, features), []).append(tuple(v if v is not None else np.nan for v in row))
                print(seed, name, features, row, flush=True)
    command = f"python benchmarks/handover.py --data {arguments.data} --seeds {arguments.seeds}"
    command += " --aggregations " + " ".join(arguments.aggregations)
    command += "".join(f" --set {assignment}" for assignment in arguments.assignments)
    write(arguments.out, "handover", _lines(command, device, arguments.seeds, found), device)


def _lines(
    command: str,
    device: torch.device,
    seeds: int,
    found: dict[tuple[str, str], list[tuple[float, ...]]],
) -> list[str]:
    lines = [
        "# What local CNNs hand over",
        "",
        describe_machine(command, device),
        "",
        f"Mean and standard deviation over {seeds} seeds, on the same frozen local CNNs.",
        "",
        "| aggregation | features | numbers per subdomain | test accuracy | NLL | ECE | seconds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (name, features), rows in found.items():
        values = np.array(rows)
        mean, spread = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else values[0] * 0
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(mean[:3], spread[:3], strict=True)]
        lines.append(f"| {name} | {features} | {mean[4]:.0f} | {' | '.join(cells)} | {mean[3]:.1f} |")
    return lines


def _config(values: dict[str, Any], seed: int, name: str, features: str) -> Config:
    aggregation = values.get("aggregation", {}) | {"name": name, "features": features}
    return Config.parse(values | {"seed": seed, "aggregation": aggregation})


def _with(setup: Setup, config: Config) -> Setup:
    """Return the same data and computation for another aggregation."""
    config = setup.config.model_copy(update={"aggregation": config.aggregation})
    return replace(setup, config=config, networks=replace(setup.networks, config=config))


if __name__ == "__main__":
    main()

"""What does the CNN-DNN lose without some of its local CNNs, and what does subdomain dropout help?

    python benchmarks/missing.py [--dropout 0 0.1 0.25] [--seeds 1] [--set decomposition.grid=4x4 ...]

The local CNNs are trained once per seed, and a DNN on them for each dropout. Mean test accuracy over the seeds; "one
missing" is the mean over the subdomains (the worst of them in brackets), the others the mean over random sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import describe_machine

from ddcnn.config import Config, assign
from ddcnn.engines import InProcess
from ddcnn.experiments.decisions import judge
from ddcnn.experiments.results import judge_missing
from ddcnn.planning import Setup, decide, prepare
from ddcnn.strategies import StrategyContext
from ddcnn.strategies.local import aggregate, train_local_cnns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1, 0.25])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
    values: dict[str, Any] = {}
    for assignment in arguments.assignments:
        assign(values, assignment)
    rows = [measure(values, arguments.dropout, seed) for seed in range(arguments.seeds)]
    words = [f"--dropout {' '.join(f'{d:g}' for d in arguments.dropout)}", f"--seeds {arguments.seeds}"]
    words += [f"--set {a}" for a in arguments.assignments]
    print(describe_machine(" ".join(["python benchmarks/missing.py", *words]), torch.device("cpu")) + "\n")
    for name in rows[0]:
        print(line(name, [row[name] for row in rows]))


def measure(values: dict[str, Any], dropouts: Sequence[float], seed: int) -> dict[str, dict[str, Any]]:
    setup = decide(prepare(Config.parse(values | {"seed": seed})), ())[0]
    local = train_local_cnns(StrategyContext(setup, InProcess()))

    def found(name: str, setup: Setup = setup) -> dict[str, Any]:
        result = aggregate(StrategyContext(setup, InProcess()), local, name)
        return {"none": judge(setup, result).accuracy["test"], **(judge_missing(setup, result) or {})}

    rows = {name: found(name) for name in ("average", "vote")}
    for dropout in dropouts:
        section = setup.config.aggregation.model_copy(update={"subdomain_dropout": dropout})
        config = setup.config.model_copy(update={"aggregation": section})
        changed = replace(setup, config=config, networks=replace(setup.networks, config=config))
        rows[f"CNN-DNN, dropout {dropout:g}"] = found("dense", changed)
    return rows


def line(name: str, seeds: Sequence[dict[str, Any]]) -> str:
    one = np.array([row["one"] for row in seeds])
    cells = [f"{np.mean([row['none'] for row in seeds]):.4f}", f"{one.mean():.4f} ({one.min(1).mean():.4f})"]
    for i, first in enumerate(seeds[0]["random"][1:], 1):
        cells.append(f"{first['missing']} missing {np.mean([row['random'][i]['mean'] for row in seeds]):.4f}")
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

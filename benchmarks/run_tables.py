"""Runs to a committed table: what they found, and the command, versions, seed and machine of each.

python benchmarks/run_tables.py --title "CIFAR-10" --out benchmarks/results/NAME.md RUN [RUN ...]
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import yaml
from common import write_page

from ddcnn.report import comparison_table
from ddcnn.report.labels_and_formats import strategy_label

_SHOWN = (("test_accuracy", 100, 1), ("test_auc", 1, 3), ("test_f1", 1, 3))


def main() -> None:
    write_page(__doc__, lambda runs: [*over_seeds(runs), *(line for run in runs for line in section(run))])


def over_seeds(runs: list[Path]) -> list[str]:
    """Return a table of runs that differ in their seed alone: mean and standard deviation over the seeds."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        results = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        alike.setdefault(json.dumps(config | dict.fromkeys(("seed", "out", "force"))), []).append(results)
    lines = []
    for found in alike.values():
        if len(found) == 1:
            continue
        name = f"{found[0]['data']}, {found[0]['model']}, {'x'.join(map(str, found[0]['grid']))}"
        seeds = ", ".join(str(results["seed"]) for results in found)
        lines += [f"## {name}: mean and standard deviation over seeds {seeds}", ""]
        lines += ["| strategy | test accuracy (%) | test AUC | test F1 |", "| --- | ---: | ---: | ---: |"]
        for rows in zip(*(results["strategies"] for results in found), strict=True):
            values = [_spread([row[key] for row in rows], factor, digits) for key, factor, digits in _SHOWN]
            lines.append(f"| {strategy_label(rows[0]['name'])} | {' | '.join(values)} |")
        lines.append("")
    return lines


def _spread(values: list[float | None], factor: float, digits: int) -> str:
    known = [factor * value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{statistics.mean(known):.{digits}f} ± {statistics.stdev(known):.{digits}f}"


def section(run: Path) -> list[str]:
    results: dict[str, Any] = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    details, grid = results["details"], "x".join(map(str, results["grid"]))
    samples = ", ".join(f"{count:,} {part}" for part, count in details["samples"].items())
    versions = ", ".join(f"{name} {number}" for name, number in details["versions"].items())
    local = [row["test_accuracy"] for row in results["subdomains"]]
    return [
        f"## {results['data']}, {results['model']}, {grid}, seed {results['seed']}",
        "",
        f"`{details['command']}`",
        "",
        comparison_table(results),
        "",
        f"Local CNNs alone: {100 * min(local):.1f} to {100 * max(local):.1f} % of the test images right. "
        f"Images: {samples}. " + " ".join(f"{key} {text}." for key, text in details["choices"].items()),
        "",
        f"{environment['processor']}, {environment['threads']} threads of {environment['cores']} cores, "
        f"{environment['device']}; {versions}.",
        "",
    ]


if __name__ == "__main__":
    main()

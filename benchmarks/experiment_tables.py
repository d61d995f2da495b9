"""Finished experiments to committed tables: arms, differences, and the command, versions and machine of each.

    python benchmarks/experiment_tables.py --title "Aggregations" --out benchmarks/results/NAME.md FOLDER [FOLDER ...]

The cells, one JSON line each with the complete configuration, are written beside the tables. Folders, times, and what
is compared at equal time, are left out: experiments run for hours beside other work. How to read the columns:
``docs/how-to/experiments.md``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from common import write_page

from ddcnn.report import experiment_remarks

ARMS = ("result", "n", "test accuracy (%)", "sd", "95 % interval", "parameters", "each seed (%)")
AT_EQUAL_TIME = "At equal critical path"
PAIRS = ("difference", "points", "verdict", "95 % over seeds", "95 % over images", "p (Holm)", "equal p (Holm)")


def main() -> None:
    folders, out = write_page(__doc__, tables)
    cells = [line for folder in folders for line in cells_of(folder)]
    out.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in cells), encoding="utf-8")


def tables(folders: list[Path]) -> list[str]:
    """Return the tables of experiments."""
    found = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    return [line for summary in found for line in section(summary)]


def cells_of(folder: Path) -> list[str]:
    """Return the lines of an experiment's cells without times and trajectories."""
    cells = [json.loads(line) for line in (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines()]
    for cell in cells:
        cell["config"]["data"].pop("directory", None)
        if weights := cell["config"]["init"].get("weights"):
            cell["config"]["init"]["weights"] = Path(weights).name
        for arm in cell["arms"].values():
            for name in [name for name in arm if "seconds" in name or name == "trajectory"]:
                del arm[name]
    return [json.dumps(cell) for cell in cells]


def section(summary: dict[str, Any]) -> list[str]:
    """Return the tables of one experiment."""
    about, machine, versions = summary["about"], summary["machine"], summary["versions"]
    command = re.sub(r" --(out|data-dir) \S+| --(quiet|offline)\b", "", summary["command"])
    command = re.sub(r"(?<= --weights )\S*/", "", command)
    samples = ", ".join(f"{count:,} {part}" for part, count in about["samples"].items())
    grid = "x".join(map(str, about["grid"]))
    lines = [
        f"## `{summary['experiment']}` on {about['data']}, {about['model']}, {grid}, {about['epochs']} epochs a stage",
        "",
        summary["question"],
        "",
        f"`{command}`; {samples} images; {machine['processor']}, {machine['threads']} of {machine['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "; "
        + "; ".join(f"{name} {choice}" for name, choice in summary["choices"].items())
        + ".",
        "",
        *_table(ARMS, [_arm(row) for row in summary["arms"]]),
    ]
    if summary["pairs"]:
        lines += _table(PAIRS, [_pair(row) for row in summary["pairs"]])
    for table in summary["tables"]:
        if table["title"] != AT_EQUAL_TIME:
            lines += [f"**{table['title']}**", "", *_table(table["columns"], table["rows"]), table["note"], ""]
    lines += [f"{name} is left out: {why}." for name, why in summary["left_out"].items()]
    lines += [f"{line[0].upper()}{line[1:]}." for line in experiment_remarks(summary)]
    return [*lines, ""]


def _arm(row: dict[str, Any]) -> list[str]:
    values = ", ".join(f"{100 * value:.1f}" for value in row["values"])
    mean, sd = f"{100 * row['mean']:.2f}", "-" if row["sd"] is None else f"{100 * row['sd']:.2f}"
    return [row["name"], str(row["n"]), mean, sd, _interval(row["interval"]), f"{row['parameters']:,.0f}", values]


def _pair(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['arm']} − {row['other']}" + ("" if row["measure"] == "test_accuracy" else f", {row['measure']}"),
        f"{100 * row['mean']:+.2f}",
        row["verdict"],
        _interval(row["interval"], "+.2f"),
        _interval(row["images_interval"], "+.2f"),
        _p(row["holm_p"]),
        _p(row["equivalence_holm_p"]),
    ]


def _interval(values: list[float] | None, form: str = ".2f") -> str:
    return "-" if values is None else " to ".join(format(100 * value, form) for value in values)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(columns: tuple[str, ...] | list[str], rows: list[list[str]]) -> list[str]:
    cells = [" | ".join(map(str, row)) for row in (columns, ["---"] * len(columns), *rows)]
    return [*(f"| {line} |" for line in cells), ""]


if __name__ == "__main__":
    main()

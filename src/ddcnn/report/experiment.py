"""The page of an experiment: one HTML file without any outside reference, and its plots as files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from ddcnn.atomic import advice, write_atomic
from ddcnn.errors import RunError
from ddcnn.report import experiment_plots as plots
from ddcnn.report import svg
from ddcnn.report.experiment_summary import (
    Summary,
    arm_columns,
    arm_row,
    differences,
    missing_arms,
    pair_columns,
    pair_row,
    points,
    probability,
    read_summary,
)
from ddcnn.report.labels_and_formats import by, count
from ddcnn.report.page import page_environment
from ddcnn.text import printable

_PAGE = "report.html"


def write_experiment_report(folder: Path | str) -> Path:
    """Write `report.html` and ``plots/`` of an experiment and return the path of the page.

    Raises
    ------
    RunError
        ``summary.json`` is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    summary = read_summary(folder)
    figures = _figures(summary)
    try:
        (folder / "plots").mkdir(exist_ok=True)
        for name, figure in figures.items():
            plots.save(figure, folder / "plots", name)
        write_atomic(folder / _PAGE, render(summary, figures).encode(errors="backslashreplace"))
    except OSError as error:
        raise RunError(f"{folder / _PAGE} cannot be written: {advice(error)}") from None
    return folder / _PAGE


def render(summary: Summary, figures: Mapping[str, Figure]) -> str:
    """Return the page as text."""
    folder = files("ddcnn.report")
    template = page_environment().from_string(folder.joinpath("experiment.html").read_text("utf-8"))
    style = svg.theme() + folder.joinpath("style.css").read_text("utf-8")
    return template.render(_context(summary, figures), style=Markup(style)) + "\n"


def experiment_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the content of ``summary.json`` as tables for the terminal."""
    parsed = Summary.parse(summary)
    arms = _rich("", arm_columns(parsed), [arm_row(arm) for arm in parsed.arms])
    pairs = _rich("", pair_columns(parsed)[:7], [pair_row(pair)[:7] for pair in parsed.pairs])
    more = [_rich(table.title, table.columns, list(table.rows)) for table in parsed.tables]
    return [arms, *([pairs] if parsed.pairs else []), *more]


def experiment_remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the tables should know: what is missing, and what cells do not have in common."""
    parsed = Summary.parse(summary)
    return [*missing_arms(parsed), *differences(parsed)]


def _rich(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=Text(printable(title)) if title else None, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(Text(printable(name)), justify="right" if i else "left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _figures(summary: Summary) -> dict[str, Figure]:
    figures = {"arms": plots.arms_figure(summary)}
    if summary.pairs:
        figures["differences"] = plots.pairs_figure(summary)
    for number, curve in enumerate(summary.curves, 1):
        figures[f"curve-{number}"] = plots.curve_figure(curve)
    return figures


def _context(summary: Summary, figures: Mapping[str, Figure]) -> dict[str, Any]:
    samples = {word: n for word, n in dict(summary.about.get("samples") or {}).items() if n is not None}
    spread = [arm.images_sd for arm in summary.arms if arm.images_sd is not None]
    alts = {
        "arms": _alt(summary),
        "differences": "Differences of results with their intervals; the table has the numbers",
    }
    drawn = {
        name: Markup(svg.to_svg(figure, name=name, alt=alts.get(name, "Curves; the tables have the numbers")))
        for name, figure in figures.items()  # both matplotlib and to_svg escape what they write
    }
    tested = [pair for pair in summary.pairs if len(pair.mcnemar_p) == len(summary.units)]
    most = max((pair.n for pair in summary.pairs), default=0)
    return {
        "summary": summary,
        "grid": by(tuple(summary.about.get("grid") or ())),
        "samples": ", ".join(f"{count(n)} images to {word}" for word, n in _words(samples)),
        "tested": count(samples.get("test")),
        "images_sd": points(float(np.median(spread)), signed=False) if spread else "",
        "columns": arm_columns(summary),
        "rows": [arm_row(arm) for arm in summary.arms],
        "arms_plot": drawn["arms"],
        "differing": differences(summary),
        "left_out": [f"{name}: {why}" for name, why in summary.left_out.items()],
        "pair_columns": pair_columns(summary),
        "pair_rows": [pair_row(pair) for pair in summary.pairs],
        "pairs_plot": drawn.get("differences", ""),
        "margin": f"{100 * summary.margin:g}",
        "most": most,
        "least": f"{2 / 2**most:g}",
        "mcnemar_columns": ("difference", *(f"{summary.unit} {unit}" for unit in summary.units)),
        "mcnemar": [(pair_row(pair)[0], *map(probability, pair.mcnemar_p)) for pair in tested],
        "curves": [
            {"title": curve.title, "note": curve.note, "plot": drawn[f"curve-{number}"]}
            for number, curve in enumerate(summary.curves, 1)
        ],
        "facts": _facts(summary),
    }


def _words(samples: Mapping[str, Any]) -> list[tuple[str, Any]]:
    words = {"train": "train", "validation": "choose the epoch", "test": "test"}
    return [(words.get(name, name), n) for name, n in samples.items()]


def _alt(summary: Summary) -> str:
    return "Test accuracy: " + ", ".join(f"{arm.name} {points(arm.mean, signed=False)} %" for arm in summary.arms)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    versions = " ".join(f"{name} {value}" for name, value in summary.versions.items())
    machine = ", ".join(f"{name}: {value}" for name, value in summary.machine.items() if value is not None)
    choices = [(name, str(value)) for name, value in summary.choices.items()]
    facts = [("command", summary.command), ("versions", versions), ("machine of the first cell", machine), *choices]
    return [(name, value) for name, value in facts if value]

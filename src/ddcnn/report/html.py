"""Assemble the page of a run: one HTML file without any outside reference."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ddcnn.report import classes, sections, svg, uncertainty
from ddcnn.report.advice import advice, warning
from ddcnn.report.curves import curves_of
from ddcnn.report.labels_and_formats import STRATEGIES, by, count, strategy_label
from ddcnn.report.missing import missing_section
from ddcnn.report.mistakes import gallery
from ddcnn.report.page import page_environment
from ddcnn.report.read import RunContent, read_run
from ddcnn.report.results import Results
from ddcnn.report.tables import cells, columns, is_best, sureness_rows
from ddcnn.report.verdict import number_of_subdomains, verdict
from ddcnn.runs.folder import REPORT, RunFolder

_NBSP = "\N{NO-BREAK SPACE}"


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into a run folder and return its path; the same files give the same page.

    A run that is complete is checked against its manifest before, and the manifest then names the new page.

    Raises
    ------
    RunError
        A file of the run is missing or damaged, or the folder cannot be written to.
    """
    folder = RunFolder(run_dir)
    complete = folder.is_complete()
    if complete:
        folder.check(but=[REPORT])
    write = folder.add_sealed if complete else folder.write_text
    write(REPORT, render(read_run(run_dir)))
    return folder.path / REPORT


def render(run: RunContent) -> str:
    """Return the page as text."""
    folder = files("ddcnn.report")
    template = page_environment().from_string(folder.joinpath("template.html").read_text("utf-8"))
    style = svg.theme() + folder.joinpath("style.css").read_text("utf-8")
    script = folder.joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = {"style": Markup(style), "script": Markup(script), "script_digest": digest}
    return _with_contents(template.render(_context(run), **words)) + "\n"


_HEADED = re.compile(r"<section( class=\"[a-z]+\")?>\n<h2>([^<]*)</h2>")


def _with_contents(page: str) -> str:
    r"""Give each section an identifier, and list them all in the place of the empty list.

    >>> _with_contents("<ul></ul><section>\n<h2>Training time</h2>").replace("\n", "")
    '<ul><li><a href="#training-time">Training time</a></li></ul><section id="training-time"><h2>Training time</h2>'
    """
    titles = [title for _, title in _HEADED.findall(page)]
    items = "".join(f'<li><a href="#{_identifier(title)}">{title}</a></li>' for title in titles)
    page = _HEADED.sub(lambda m: f'<section{m[1] or ""} id="{_identifier(m[2])}">\n<h2>{m[2]}</h2>', page)
    return page.replace("<ul></ul>", f"<ul>{items}</ul>", 1)


def _identifier(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower())


def _context(run: RunContent) -> dict[str, Any]:
    results = run.results
    details = results.details
    samples = details.samples.get("test")
    panels = curves_of(run.rows)
    return {
        "results": results,
        "N": number_of_subdomains(results),
        "K": len(details.classes) or None,
        "samples": samples,
        "verdict": verdict(results).replace(" %", f"{_NBSP}%"),
        "doubts": " ".join(uncertainty.doubts(results)).replace(" %", f"{_NBSP}%"),
        "warning": warning(results).replace(" %", f"{_NBSP}%"),
        "advice": advice(results, panels),
        "mistakes": gallery(results, run.mistakes),
        "mistaken": strategy_label(details.mistakes),
        "class_columns": classes.COLUMNS,
        "class_tables": classes.class_tables(results),
        "nbsp": _NBSP,
        "columns": columns(results),
        "rows": [_row(results, i) for i in range(len(results.strategies))],
        "sureness": sureness_rows(results),
        "explained": [(s.name, *STRATEGIES[s.name]) for s in results.strategies if s.name in STRATEGIES],
        "accuracy": sections.accuracy(results, samples),
        "drawings": sections.drawings(run),
        "annotated": run.annotation is not None and bool(run.annotation.any()),
        "drawn_as": sections.drawn_as(run),
        "coarse": [str(n) for n in sections.coarse(run) if n in run.subimages],
        "overlapping": sections.overlapping(run),
        "map": sections.subdomain_map(run),
        "off_map": sections.beside_the_map(run),
        "class_map": sections.class_map(results),
        "absent": [str(s.index) for s in results.subdomains if s.missing],
        "missing": missing_section(results, run.footprints),
        "details_table": sections.subdomain_rows(results),
        "curves": sections.training(panels),
        "folds": any("/" in name for name in panels) and not details.folds,
        "confusion": sections.confusion(results),
        "reliability": sections.reliability(results),
        "time": sections.time(results),
        "parameters": sections.parameters(results),
        "facts": _facts(run),
        "config": run.config,
    }


@dataclass(frozen=True)
class _Row:
    colour: str
    cells: tuple[str, ...]
    best: bool


def _row(results: Results, i: int) -> _Row:
    strategy = results.strategies[i]
    return _Row(svg.variable(strategy.name), cells(strategy, results), is_best(strategy, results))


def _facts(run: RunContent) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return headed lists of (name, value) on how the run was made."""
    results, details = run.results, run.results.details
    made = {
        "command": details.command or run.environment.get("command"),
        "run": results.run,
        "data": results.data,
        "samples": ", ".join(f"{count(n)} {word}" for word, n in details.samples.items() if n is not None),
        "image (channels × size)": by(details.image_shape),
        "classes": ", ".join(details.classes),
        "model": results.model,
        "grid": by(results.grid),
        "decomposition": results.decomposition,
        "seed": results.seed,
        "device": results.device,
    }
    groups = (
        ("Run", made),
        ("Choices made by measurement", details.choices),
        ("Versions", details.versions),
        ("Environment", run.environment),
    )
    listed = [(title, _flat(values)) for title, values in groups]
    return [(title, values) for title, values in listed if values]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested mappings to (name, value); what is empty is left out.

    >>> _flat({"a": {"b": 1}, "c": ["x", "y"], "d": None})
    [('a b', '1'), ('c', 'x y')]
    """
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key} ")
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            found += [(f"{prefix}{key}", " ".join(value))] if value else []
        elif value not in (None, ""):
            found.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return found

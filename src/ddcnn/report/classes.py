"""How well each class is recognised: precision, recall and F1 of each strategy."""

from __future__ import annotations

from dataclasses import dataclass

from ddcnn.report.labels_and_formats import MISSING, count, percent, share, strategy_label, wilson_interval
from ddcnn.report.results import Results, StrategyResults
from ddcnn.training import class_figures

COLUMNS = ("class", "test images", "precision (%)", "recall (%)", "95 % interval of the recall", "F1")
_MOST_NAMED = 10


@dataclass(frozen=True)
class ClassTable:
    """The figures of one strategy; ``rows`` are in the order of the classes, under `COLUMNS`.

    ``note`` says by which thresholds it decides; empty: for the most probable class.
    """

    label: str
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def class_tables(results: Results) -> list[ClassTable]:
    """Return a table for each strategy whose decisions were counted, the most accurate one first."""
    ranked = sorted(results.strategies, key=lambda s: -(s.test_accuracy or 0.0))
    found = [(s, matrix) for s in ranked if (matrix := results.details.confusion.get(s.name))]
    return [ClassTable(strategy_label(s.name), _rows(results, matrix), _note(results, s)) for s, matrix in found]


def _note(results: Results, strategy: StrategyResults) -> str:
    names = results.details.classes
    if not strategy.thresholds or len(strategy.thresholds) != len(names):
        return ""
    said = [f"{name} {share(threshold)}" for name, threshold in zip(names, strategy.thresholds, strict=True)]
    more = ["..."] if len(said) > _MOST_NAMED else []
    return f"Decided by thresholds instead of the largest probability: {', '.join(said[:_MOST_NAMED] + more)}."


def _rows(results: Results, matrix: tuple[tuple[int, ...], ...]) -> tuple[tuple[str, ...], ...]:
    figures = class_figures(matrix)
    named = len(results.details.classes) == len(matrix)
    rows = []
    for k, (n, precision, recall, f1) in enumerate(zip(*figures.values(), strict=True)):
        low, high = wilson_interval(recall, n) if n else (None, None)
        span = MISSING if low is None else f"{percent(low)} to {percent(high)}"
        name = results.details.classes[k] if named else str(k)
        rows.append((name, count(n), percent(precision), percent(recall), span, share(f1)))
    return tuple(rows)

"""The comparison of strategies as a table: for Markdown, for the terminal, and as cells for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ddcnn.report.labels_and_formats import count, decimals, mebibytes, percent, seconds, share, strategy_label
from ddcnn.report.results import Results, StrategyResults
from ddcnn.text import printable

_COLUMNS = (
    "strategy",
    "test accuracy (%)",
    "test AUC",
    "test F1",
    "validation accuracy (%)",
    "training accuracy (%)",
    "parameters",
    "epochs",
    "time (s)",
    "critical path (s)",
    "peak memory (MiB)",
)
_SHORT = (
    "strategy",
    "test %",
    "AUC",
    "F1",
    "val %",
    "train %",
    "parameters",
    "epochs",
    "time\n(s)",
    "critical\npath (s)",
    "peak\nMiB",
)


def columns(results: Results) -> tuple[str, ...]:
    """Return the names of the columns; AUC and F1 are among them where they say more than accuracy."""
    return _chosen(_COLUMNS, results)


def cells(strategy: StrategyResults, results: Results) -> tuple[str, ...]:
    """Return one row, in the order of `columns`; what was not measured is "-"."""
    row = (
        strategy_label(strategy.name),
        percent(strategy.test_accuracy) + _half(strategy, "test_accuracy", 100, 1),
        share(strategy.test_auc) + _half(strategy, "test_auc", 1, 3),
        share(strategy.test_f1) + _half(strategy, "test_f1", 1, 3),
        percent(strategy.validation_accuracy),
        percent(strategy.train_accuracy),
        count(strategy.parameters),
        count(strategy.epochs),
        seconds(strategy.seconds),
        seconds(strategy.critical_path_seconds),
        mebibytes(strategy.peak_memory_bytes),
    )
    return _chosen(row, results)


def sureness_rows(results: Results) -> list[tuple[str, ...]]:
    """Return for each strategy what it decides from, NLL, Brier score and ECE (%); empty where none was measured."""
    if all(strategy.test_nll is None for strategy in results.strategies):
        return []
    return [
        (
            strategy_label(strategy.name),
            _handed(strategy),
            decimals(strategy.test_nll),
            decimals(strategy.test_brier),
            percent(strategy.test_ece),
        )
        for strategy in results.strategies
    ]


def _handed(strategy: StrategyResults) -> str:
    over = strategy.handed_over
    return "-" if over is None or not over.features else f"{over.features} ({count(over.numbers)})"


def _chosen(row: tuple[str, ...], results: Results) -> tuple[str, ...]:
    return row if results.ranked else (*row[:2], *row[4:])


def _half(strategy: StrategyResults, name: str, scale: float, decimals: int) -> str:
    """Write half the width of an interval; of one that is clipped, of its longer side."""
    bounds, value = strategy.intervals.get(name), getattr(strategy, name)
    if bounds is None or value is None or None in bounds:
        return ""
    half = max(value - (bounds[0] or 0), (bounds[1] or 0) - value)
    return f" ± {scale * half:.{decimals}f}"


def is_best(strategy: StrategyResults, results: Results) -> bool:
    """Return whether no other strategy has a better test accuracy."""
    return strategy.test_accuracy is not None and strategy.test_accuracy == results.best


def comparison_table(results: Mapping[str, Any]) -> str:
    """Return the content of `comparison.json` as a Markdown table; the best test accuracy is bold.

    >>> print(comparison_table({"strategies": [{"name": "global", "test_accuracy": 0.988}]}).splitlines()[2])
    | global CNN | **98.8** | - | - | - | - | - | - | - |
    """
    parsed = Results.parse(results)
    names = columns(parsed)
    lines = [_line(names), _line(["---"] + ["---:"] * (len(names) - 1))]
    for strategy in parsed.strategies:
        label, test, *others = (cell.replace("|", "\\|") for cell in cells(strategy, parsed))
        lines.append(_line([label, f"**{test}**" if is_best(strategy, parsed) else test, *others]))
    return "\n".join(lines) + "\n"


def rich_table(results: Mapping[str, Any]) -> Table:
    """Return the content of `comparison.json` as a table for the terminal; the best test accuracy is bold.

    >>> rich_table({"strategies": [{"name": "global"}, {"name": "vote"}]}).row_count
    2
    """
    parsed = Results.parse(results)
    table = Table()
    for i, name in enumerate(_chosen(_SHORT, parsed)):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for strategy in parsed.strategies:
        label, test, *others = cells(strategy, parsed)
        style = "bold" if is_best(strategy, parsed) else ""
        table.add_row(Text(printable(label)), Text(test, style=style), *others)
    return table


def _line(values: Any) -> str:
    return f"| {' | '.join(values)} |"

"""The comparison of strategies as a table: for Markdown, for the terminal, and as cells for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ddcnn.report.results import Results, Strategy
from ddcnn.report.words import count, mebibytes, percent, seconds, strategy_label

COLUMNS = (
    "strategy",
    "test accuracy (%)",
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
    "val %",
    "train %",
    "parameters",
    "epochs",
    "time\n(s)",
    "critical\npath (s)",
    "peak\nMiB",
)


def cells(strategy: Strategy) -> tuple[str, ...]:
    """Return one row, in the order of `COLUMNS`; what was not measured is "-"."""
    return (
        strategy_label(strategy.name),
        percent(strategy.test_accuracy),
        percent(strategy.validation_accuracy),
        percent(strategy.train_accuracy),
        count(strategy.parameters),
        count(strategy.epochs),
        seconds(strategy.seconds),
        seconds(strategy.critical_path_seconds),
        mebibytes(strategy.peak_memory_bytes),
    )


def is_best(strategy: Strategy, results: Results) -> bool:
    """Return whether no other strategy has a better test accuracy."""
    return strategy.test_accuracy is not None and strategy.test_accuracy == results.best


def comparison_table(results: Mapping[str, Any]) -> str:
    """Return the content of `comparison.json` as a Markdown table; the best test accuracy is bold.

    >>> print(comparison_table({"strategies": [{"name": "global", "test_accuracy": 0.988}]}).splitlines()[2])
    | global CNN | **98.8** | - | - | - | - | - | - | - |
    """
    parsed = Results.parse(results)
    lines = [_line(COLUMNS), _line(["---"] + ["---:"] * (len(COLUMNS) - 1))]
    for strategy in parsed.strategies:
        label, test, *others = (cell.replace("|", "\\|") for cell in cells(strategy))
        lines.append(_line([label, f"**{test}**" if is_best(strategy, parsed) else test, *others]))
    return "\n".join(lines) + "\n"


def rich_table(results: Mapping[str, Any]) -> Table:
    """Return the content of `comparison.json` as a table for the terminal; the best test accuracy is bold.

    >>> rich_table({"strategies": [{"name": "global"}, {"name": "vote"}]}).row_count
    2
    """
    parsed = Results.parse(results)
    table = Table()
    for i, name in enumerate(_SHORT):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for strategy in parsed.strategies:
        label, test, *others = cells(strategy)
        style = "bold" if is_best(strategy, parsed) else ""
        table.add_row(Text(label), Text(test, style=style), *others)
    return table


def _line(values: Any) -> str:
    return f"| {' | '.join(values)} |"

"""What decisions are worth without some of the local CNNs: a curve, a map, and a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddcnn.report import matrices, svg
from ddcnn.report.labels_and_formats import percent, strategy_label
from ddcnn.report.results import Missing, Results, StrategyResults


class AccuracyWithout(NamedTuple):
    """Test accuracies with so many subdomains missing."""

    missing: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MissingSection:
    """What the page shows; ``rows`` are those of the table, under ``columns``."""

    sentence: str
    curve: Markup
    map: Markup | None
    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def missing_section(results: Results, footprints: np.ndarray | None = None) -> MissingSection | None:
    """Return what there is to show of missing subdomains; None where nothing was measured.

    Parameters
    ----------
    footprints
        As in `ddcnn.report.draw_decomposition`, for a map where there is no grid.
    """
    found = [(s, m) for s in results.strategies if (m := results.details.missing.get(s.name)) and points(s, m)]
    if not found:
        return None
    lines = [(s, points(s, m)) for s, m in found]
    strategy, best = max(found, key=lambda pair: pair[0].test_accuracy or 0)
    count = max(len(m.one) for _, m in found)
    table = [[percent(m.one[n] if n < len(m.one) else None) for _, m in found] for n in range(count)]
    return MissingSection(
        sentence=_sentence(strategy, best),
        curve=Markup(svg.to_svg(curve_figure(lines), name="missing", alt=_alt(lines))),
        map=_map(results, strategy, best, footprints),
        label=strategy_label(strategy.name),
        columns=tuple(strategy_label(s.name) for s, _ in found),
        rows=tuple((str(n), *cells) for n, cells in enumerate(table)),
    )


def points(strategy: StrategyResults, missing: Missing) -> list[AccuracyWithout]:
    """Return the accuracies over the number of missing subdomains, from none; empty unless some are known."""
    whole = strategy.test_accuracy
    known = [
        AccuracyWithout(
            row.missing, row.mean, row.mean if row.min is None else row.min, row.mean if row.max is None else row.max
        )
        for row in missing.random
        if row.missing is not None and row.mean is not None
    ]
    return [AccuracyWithout(0, whole, whole, whole), *known] if known and whole is not None else []


def curve_figure(lines: list[tuple[StrategyResults, list[AccuracyWithout]]]) -> Figure:
    """Draw mean accuracies over the number of missing subdomains, in a band from the worst to the best set."""
    with svg.style():
        figure = Figure(figsize=(8.8, 3.2), layout="constrained")
        axes = figure.subplots()
        for strategy, line in lines:
            x, mean, low, high = np.array(line).T
            tint = svg.colour(strategy.name)
            axes.fill_between(x, 100 * low, 100 * high, color=tint, alpha=0.12, linewidth=0)
            axes.plot(x, 100 * mean, color=tint, linewidth=1.8, marker="o", markersize=4.5)
            axes.plot([], [], color=tint, linewidth=1.8, label=strategy_label(strategy.name))
        axes.set(xlabel="missing subdomains", ylabel="test accuracy (%)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.grid(visible=True, axis="y")
        figure.legend(loc="outside upper left", ncols=5, fontsize=8.5, labelcolor=svg.INK, borderaxespad=0)
    return figure


def _map(results: Results, strategy: StrategyResults, missing: Missing, footprints: np.ndarray | None) -> Markup | None:
    """Draw the percentage points that each subdomain is worth, at its place."""
    whole = strategy.test_accuracy
    if whole is None or (footprints is not None and len(missing.one) < len(footprints)):
        return None
    losses = [None if a is None else round(whole - a, 3) + 0.0 for a in missing.one]  # no "-0.0"
    figure = matrices.place_figure(losses, results.grid, footprints, 0.0)
    if figure is None:
        return None
    words = ", ".join(f"{n}: {percent(loss)}" for n, loss in enumerate(losses))
    alt = f"Percentage points that {strategy_label(strategy.name)} loses without a subdomain. {words}"
    return Markup(svg.to_svg(figure, name="losses", alt=alt))


def _sentence(strategy: StrategyResults, missing: Missing) -> str:
    """Say what the best strategy is worth without one subdomain."""
    one = [(accuracy, n) for n, accuracy in enumerate(missing.one) if accuracy is not None]
    if not one:
        return ""
    worst, where = min(one)
    mean = sum(accuracy for accuracy, _ in one) / len(one)
    return (
        f"With one of {len(missing.one)} subdomains missing, {strategy_label(strategy.name)} reaches "
        f"{percent(mean, ' %')} in the mean instead of {percent(strategy.test_accuracy, ' %')}, and "
        f"{percent(worst, ' %')} without subdomain {where}, which it needs most."
    )


def _alt(lines: list[tuple[StrategyResults, list[AccuracyWithout]]]) -> str:
    words = (
        f"{strategy_label(strategy.name)} "
        + ", ".join(f"{percent(point.mean, ' %')} with {point.missing} missing" for point in line)
        for strategy, line in lines
    )
    return f"Test accuracy with subdomains missing: {'; '.join(words)}"

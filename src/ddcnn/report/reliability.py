"""How often decisions are right that are made with some probability: one line per strategy, where a run knows it."""

from __future__ import annotations

from matplotlib.figure import Figure

from ddcnn.report import svg
from ddcnn.report.labels_and_formats import strategy_label
from ddcnn.report.results import ReliabilityBin, Results


def reliability_lines(results: Results) -> dict[str, list[ReliabilityBin]]:
    """Return the bins that hold decisions, by strategy in the order of the report; none: left out."""
    found = {s.name: results.details.reliability.get(s.name) or () for s in results.strategies}
    kept = {
        name: [one for one in bins if one.count and None not in (one.confidence, one.accuracy)]
        for name, bins in found.items()
    }
    return {name: bins for name, bins in kept.items() if bins}


def reliability_figure(lines: dict[str, list[ReliabilityBin]]) -> Figure:
    """Draw shares of right decisions over their mean probabilities; on the diagonal both are the same."""
    with svg.style():
        figure = Figure(figsize=(3.45, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for name, bins in lines.items():
            x, y = ([100 * (value or 0.0) for value in column] for column in zip(*map(_point, bins), strict=True))
            axes.plot(x, y, color=svg.colour(name), marker="o", markersize=4, label=strategy_label(name))
        axes.set(xlabel="probability of the decision (%)", ylabel="right decisions (%)", xlim=(0, 101), ylim=(0, 101))
        axes.grid(visible=True)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8.5, labelcolor=svg.INK, borderaxespad=0)
    return figure


def _point(one: ReliabilityBin) -> tuple[float | None, float | None]:
    return one.confidence, one.accuracy

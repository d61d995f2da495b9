"""Bar charts: test accuracy, time and parameters per strategy."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ddcnn.report.labels_and_formats import count, percent, seconds, stage_label, strategy_label, wilson_interval
from ddcnn.report.results import Results, StrategyResults
from ddcnn.report.svg import INK, MUTED, PAPER, colour, style

Segment = tuple[str, float | int]
"""A part of a bar: stage, value."""

_STAGES_OF = {
    "global": ("global",),
    "average": ("local",),
    "vote": ("local",),
    "cnn-dnn": ("local", "dnn"),
    "coherent": ("coherent",),
    "transfer": ("local", "dnn", "transfer"),
}


def accuracy_figure(results: Results, samples: int | None) -> Figure:
    """Draw the test accuracies: bars that start at zero, and beside them the same, zoomed, with 95 % intervals.

    ``samples`` is the size of the test set; None draws no intervals.
    """
    strategies = [s for s in results.strategies if s.test_accuracy is not None]
    whole = results.strategy("global")
    with style():
        figure = Figure(figsize=(8.8, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        for i, s in enumerate(strategies):
            value = 100 * (s.test_accuracy or 0)
            left.bar(i, value, width=0.68, color=colour(s.name))
            _above(left, i, value)
            _whisker(right, i, s, samples)
        for axes in (left, right):
            if whole and whole.test_accuracy is not None:
                axes.axhline(100 * whole.test_accuracy, color=colour("global"), linewidth=1, linestyle=(0, (4, 3)))
            axes.set_xticks(
                range(len(strategies)), [_wrapped(strategy_label(s.name)) for s in strategies], fontsize=8.5
            )
            axes.set_xlim(-0.6, max(len(strategies), 2) - 0.4)
            axes.grid(visible=True, axis="y")
            axes.spines["left"].set_visible(False)
        left.set(ylim=(0, 110), yticks=range(0, 101, 20), title="test accuracy (%)")
        right.set_title("the same, zoomed" + (", with 95 % intervals" if samples else ""))
        right.margins(y=0.12)
    return figure


def time_figure(results: Results) -> Figure:
    """Draw the training time per strategy: as measured, and if every subdomain had its own worker."""
    strategies = [s for s in results.strategies if s.seconds is not None or s.critical_path_seconds is not None]
    rows = [(s, _segments(results, s, parallel=False), _segments(results, s, parallel=True)) for s in strategies]
    longest = max((sum(v for _, v in bar) for _, *bars in rows for bar in bars), default=0) or 1
    with style():
        figure = Figure(figsize=(8.8, 0.7 + 0.56 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for i, (s, *bars) in enumerate(rows):
            values = (s.seconds, s.critical_path_seconds)
            for bar, offset, opacity, total, word in zip(
                bars, (-0.19, 0.19), (1, 0.5), values, ("measured", "critical path"), strict=True
            ):
                _stack(axes, bar, i + offset, 0.34, opacity)
                text = f"{seconds(total, ' s')} {word}" if total is not None else f"- {word}"
                end = sum(value for _, value in bar) + 0.01 * longest
                axes.text(end, i + offset, text, va="center", fontsize=8.5, color=MUTED if word != "measured" else INK)
        axes.set_yticks(range(len(rows)), [strategy_label(s.name) for s, *_ in rows], color=INK)
        axes.set(xlim=(0, 1.28 * longest), xlabel="seconds")
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        stages = list(dict.fromkeys(name for _, *bars in rows for bar in bars for name, _ in bar))
        _legend(figure, [(_segment_colour(name), _segment_label(name)) for name in stages])
    return figure


def parameter_bars(results: Results) -> list[tuple[str, list[Segment]]]:
    """Return labelled bars: the global CNN, one local CNN, all local CNNs with their DNN; as far as known."""
    bars: list[tuple[str, list[Segment]]] = []
    whole, dense = results.strategy("global"), results.strategy("cnn-dnn") or results.strategy("transfer")
    local = [s.parameters for s in results.subdomains if s.parameters is not None]
    if whole and whole.parameters is not None:
        bars.append(("global CNN", [("global", whole.parameters)]))
    if local:
        total = sum(local)
        bars.append(("one local CNN" + (" (mean)" if len(set(local)) > 1 else ""), [("local", total / len(local))]))
        together: list[Segment] = [("local", total)]
        if dense and dense.parameters is not None and dense.parameters > total:
            together.append(("dnn", dense.parameters - total))
        plural = f"all {len(local)} local CNNs" if len(local) > 1 else "the local CNN"
        bars.append((plural + (" + DNN" if len(together) > 1 else ""), together))
    return bars


def parameter_figure(bars: Sequence[tuple[str, Sequence[Segment]]]) -> Figure:
    """Draw `parameter_bars`."""
    longest = max((sum(v for _, v in bar) for _, bar in bars), default=1)
    with style():
        figure = Figure(figsize=(8.8, 0.75 + 0.36 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for i, (_, bar) in enumerate(bars):
            _stack(axes, bar, i, 0.62, 1)
            axes.text(
                sum(v for _, v in bar) + 0.01 * longest, i, " + ".join(count(round(v)) for _, v in bar),
                va="center", fontsize=8.5,
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [label for label, _ in bars], color=INK)
        axes.set(xlim=(0, 1.3 * longest), xlabel="parameters")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
    return figure


def accuracy_alt(results: Results) -> str:
    """Return the test accuracies in words."""
    values = (f"{strategy_label(s.name)} {percent(s.test_accuracy, ' %')}" for s in results.strategies)
    return "Test accuracy per strategy: " + ", ".join(values)


def _above(axes: Axes, x: int, value: float) -> None:
    patch = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}  # keeps the dashed line out of the number
    axes.annotate(
        f"{value:.1f}", (x, value), (0, 4), textcoords="offset points", ha="center", fontsize=8.5, bbox=patch
    )  # fmt: skip


def _whisker(axes: Axes, x: int, strategy: StrategyResults, samples: int | None) -> None:
    value = strategy.test_accuracy or 0
    low, high = wilson_interval(value, samples) if samples else (value, value)
    bounds = strategy.intervals.get("test_accuracy")
    if bounds is not None and bounds[0] is not None and bounds[1] is not None:
        low, high = bounds[0], bounds[1]
    errors = [[100 * (value - low)], [100 * (high - value)]]
    tint = colour(strategy.name)
    axes.errorbar(x, 100 * value, yerr=errors, fmt="o", color=tint, markersize=6, capsize=4 if samples else 0)


def _segments(results: Results, strategy: StrategyResults, *, parallel: bool) -> list[Segment]:
    """Return the stages that make up the time of a strategy; what the stages do not explain is "other"."""
    field = "critical_path_seconds" if parallel else "seconds"
    total: float | None = getattr(strategy, field)
    if total is None:
        return []
    times = {stage.name: getattr(stage, field) for stage in results.details.stages}
    names = [name for name in _STAGES_OF.get(strategy.name, ()) if times.get(name) is not None]
    for used in (names, [name for name in names if name != "dnn"]):
        bar = [(name, times[name]) for name in used]
        rest = total - sum(value for _, value in bar)
        if bar and rest >= -0.02 * total:
            return [*bar, ("other", rest)] if rest > 0.02 * total else bar
    return [(f"strategy {strategy.name}", total)]


def _segment_colour(name: str) -> str:
    return colour(name.removeprefix("strategy "))


def _segment_label(name: str) -> str:
    return strategy_label(name.removeprefix("strategy ")) if name.startswith("strategy ") else stage_label(name)


def _stack(axes: Axes, bar: Sequence[Segment], y: float | int, height: float, opacity: float | int) -> None:
    start = 0.0
    for name, value in bar:
        axes.barh(y, value, left=start, height=height, color=_segment_colour(name), alpha=opacity)
        start += value


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    handles = [Patch(color=tint, label=label) for tint, label in dict.fromkeys(entries)]
    if handles:
        figure.legend(
            handles=handles, loc="outside upper left", ncols=min(6, len(handles)), fontsize=8.5, labelcolor=INK,
            handlelength=1, handleheight=1, borderaxespad=0,
        )  # fmt: skip


def _wrapped(label: str) -> str:
    return label.replace(" ", "\n") if len(label) < 16 else label[:14] + "…"

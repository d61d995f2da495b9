"""Plots of an experiment: arms with their intervals, differences with the margin, curves; in colours for everyone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ddcnn.report.experiment_summary import CurveRecord, Summary
from ddcnn.report.svg import INK, MUTED, PALETTE, RULE, style

_LINES = ("cnn-dnn", "coherent", "transfer", "vote", "local", "global", "average", "other")
_MARKERS = "osD^vPX*"
_DASHES = ("-", "--", "-.", ":")
_DPI = 200
_LONGEST = 46  # characters of a label


def arms_figure(summary: Summary) -> Figure:
    """Draw the mean of each arm with its 95 % interval, and each seed beside it."""
    arms = summary.arms
    with style():
        figure = Figure(figsize=(8.8, 0.9 + 0.36 * len(arms)), layout="constrained")
        axes = figure.subplots()
        for i, arm in enumerate(arms):
            known = [100 * value for value in arm.values if value is not None]
            axes.plot(known, [i + 0.22] * len(known), "o", color=MUTED, markersize=3, alpha=0.7, linewidth=0)
            low, high = _clipped(arm.interval, arm.mean, summary)
            errors = [[100 * (arm.mean - low)], [100 * (high - arm.mean)]]
            tint = PALETTE["cnn-dnn"][0]
            axes.errorbar(100 * arm.mean, i, xerr=errors, fmt="o", color=tint, markersize=6, capsize=4)
        axes.set_yticks(range(len(arms)), [_short(arm.name) for arm in arms], color=INK)
        axes.set(xlabel="test accuracy (%)", ylim=(len(arms) - 0.4, -0.6))
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
    return figure


def pairs_figure(summary: Summary) -> Figure:
    """Draw differences: thick over seeds, thin over test images, and the margin within which there is none."""
    pairs = summary.pairs
    with style():
        figure = Figure(figsize=(8.8, 0.9 + 0.42 * len(pairs)), layout="constrained")
        axes = figure.subplots()
        margin = 100 * summary.margin
        axes.axvspan(-margin, margin, color=RULE, alpha=0.6, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        widest = max([10 * margin, *(4 * 100 * abs(pair.mean) for pair in pairs)])
        for i, pair in enumerate(pairs):
            for interval, offset, tint, width in (
                (pair.interval, -0.1, PALETTE["cnn-dnn"][0], 2.4),
                (pair.images_interval, 0.16, PALETTE["coherent"][0], 1.2),
            ):
                if interval is not None and interval[0] is not None and interval[1] is not None:
                    ends = np.clip([100 * interval[0], 100 * interval[1]], -widest, widest)
                    axes.plot(ends, [i + offset] * 2, color=tint, linewidth=width, solid_capstyle="butt")
            axes.plot(100 * pair.mean, i - 0.1, "o", color=PALETTE["cnn-dnn"][0], markersize=6)
        labels = [
            _short(f"{p.arm} − {p.other}" + ("" if p.measure == "test_accuracy" else f" ({p.measure})"), 64)
            for p in pairs
        ]
        axes.set_yticks(range(len(pairs)), labels, color=INK, fontsize=8)
        axes.set(xlabel="difference of test accuracies (percentage points)", ylim=(len(pairs) - 0.4, -0.6))
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
    return figure


def curve_figure(curve: CurveRecord) -> Figure:
    """Draw lines with bands of their 95 % intervals; each has a colour, a marker and dashes of its own."""
    with style():
        figure = Figure(figsize=(8.8, 3.6), layout="constrained")
        axes = figure.subplots()
        looks = zip(itertools.cycle(_LINES), itertools.cycle(_MARKERS), itertools.cycle(_DASHES), strict=False)
        for (label, points), (role, marker, dashes) in zip(curve.lines.items(), looks, strict=False):
            if not points:
                continue
            x, mean, low, high = np.array(points).T
            tint = PALETTE[role][0]
            if curve.percent:
                mean, low, high = 100 * mean, 100 * low.clip(0, 1), 100 * high.clip(0, 1)
            axes.fill_between(x, low, high, color=tint, alpha=0.1, linewidth=0)
            axes.plot(x, mean, color=tint, marker=marker, linestyle=dashes, linewidth=1.8, markersize=5)
            axes.plot([], [], color=tint, marker=marker, linestyle=dashes, label=_short(label))
        ticks = sorted({x for points in curve.lines.values() for x, *_ in points})
        if curve.log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel=curve.x, ylabel=curve.y)
        axes.grid(visible=True, axis="y")
        figure.legend(loc="outside upper left", ncols=3, fontsize=8, labelcolor=INK, borderaxespad=0)
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure to print: ``NAME.svg``, its letters as outlines, and ``NAME.png`` at 200 dots per inch."""
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with style(), mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata=metadata)
        figure.savefig(folder / f"{name}.png", dpi=_DPI, facecolor="white")


def _clipped(interval: tuple[float | None, float | None] | None, mean: float, summary: Summary) -> tuple[float, float]:
    """Return an interval as far as it fits the plot: with two seeds it may span everything."""
    if interval is None or interval[0] is None or interval[1] is None:
        return mean, mean
    means = [arm.mean for arm in summary.arms]
    room = max(0.02, max(means) - min(means))
    return max(interval[0], mean - room, 0.0), min(interval[1], mean + room, 1.0)


def _short(label: str, most: int = _LONGEST) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"

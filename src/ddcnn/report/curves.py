"""Training curves: accuracy over epochs, one panel per stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ddcnn.report.labels_and_formats import STAGES, rank, stage_label
from ddcnn.report.results import Row
from ddcnn.report.svg import MUTED, colour, mean_of, style

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per panel, training and validation accuracy, each (epochs, M); NaN where nothing was measured."""


def curves_of(rows: Sequence[Row]) -> Curves:
    """Sort rows into panels, one per stage; the folds of a stage share a panel, and so do groups trained in turn.

    A row that repeats an epoch, as after a resumed run, replaces the earlier one.
    """
    latest: dict[str, dict[int, Row]] = {}
    for row in rows:
        latest.setdefault(row.stage, {})[row.epoch] = row
    panels: dict[str, list[dict[int, Row]]] = {}
    for stage, epochs in latest.items():
        base, _, part = stage.partition("/")
        panels.setdefault(f"{base}/folds" if part.startswith("fold") else base, []).append(epochs)
    names = sorted(panels, key=lambda name: rank(name.partition("/")[0], STAGES))
    found = {
        name: (_lines(panels[name], "train_accuracy"), _lines(panels[name], "validation_accuracy")) for name in names
    }
    return {name: pair for name, pair in found.items() if any(np.isfinite(lines).any() for lines in pair)}


def curves_figure(curves: Curves) -> Figure:
    """Draw validation accuracy (solid) and training accuracy (dashed); members thin, their mean thick."""
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    with style():
        figure = Figure(figsize=(max(3.6, 2.93 * columns), 0.4 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(curves) :]:
            axes.remove()
        for axes, (name, (training, validation)) in zip(grid.flat, curves.items(), strict=False):
            _panel(axes, name, training, validation)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy (%)")
        grid[0, 0].autoscale_view()
        low, high = grid[0, 0].get_ylim()
        grid[0, 0].set_ylim(max(low, 0), min(high, 101))
        figure.legend(handles=_handles(curves), loc="outside upper left", ncols=3, fontsize=8.5, borderaxespad=0)
    return figure


def _panel(axes: Axes, name: str, training: np.ndarray, validation: np.ndarray) -> None:
    tint = colour(name)
    members = validation.shape[1]
    epochs = np.arange(1, len(training) + 1)
    marker = "o" if len(epochs) < 3 else ""
    if members > 1:
        opacity = max(0.15, min(0.5, 4 / members))
        axes.plot(epochs, 100 * validation, color=tint, alpha=opacity, linewidth=0.8, marker=marker, markersize=2)
    seen, held_out = 100 * mean_of(_held(training)), 100 * mean_of(_held(validation))
    axes.plot(epochs, seen, color=tint, linestyle=(0, (4, 2)), linewidth=1.2, marker=marker, markersize=4)
    axes.plot(epochs, held_out, color=tint, linewidth=2, marker=marker, markersize=4)
    axes.set(title=stage_label(name) + (f" (N = {members})" if name == "local" else ""), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.grid(visible=True, axis="y")


def _handles(curves: Curves) -> list[Line2D]:
    handles = [
        Line2D([], [], color=MUTED, linewidth=2, label="validation"),
        Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label="training"),
    ]
    if any(validation.shape[1] > 1 for _, validation in curves.values()):
        handles.append(Line2D([], [], color=MUTED, linewidth=0.8, alpha=0.6, label="validation, each local CNN"))
    return handles


def _held(lines: np.ndarray) -> np.ndarray:
    """Let the last value of each member stand for the epochs after it stopped, or their mean would leap.

    >>> _held(np.array([[0.1, 0.2], [0.3, np.nan]])).tolist()
    [[0.1, 0.2], [0.3, 0.2]]
    """
    known = np.isfinite(lines)
    last = np.maximum.accumulate(np.where(known, np.arange(len(lines))[:, None], 0), axis=0)
    return np.where(known.any(axis=1, keepdims=True), np.take_along_axis(lines, last, axis=0), np.nan)


def _lines(parts: Sequence[dict[int, Row]], field: str) -> np.ndarray:
    """Return (epochs, M) from the epochs of one stage, or of all its folds side by side."""
    length = max(max(epochs) for epochs in parts)
    blocks = []
    for epochs in parts:
        M = max(len(getattr(row, field)) for row in epochs.values())
        block = np.full((length, max(M, 1)), np.nan)
        for epoch, row in epochs.items():
            values = [np.nan if value is None else value for value in getattr(row, field)]
            block[epoch - 1, : len(values)] = values
        blocks.append(block)
    return np.concatenate(blocks, axis=1)

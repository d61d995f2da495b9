"""Heat maps: accuracy per subdomain, per subdomain and class, and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddcnn.report.image_axes import inner_point, outlines, show
from ddcnn.report.svg import INK, MUTED, PAPER, ink_on, shades, style, ticks

MOST_NUMBERS = 12
"""Up to this number of classes the cells of a confusion matrix hold their counts."""

_WIDTH = 3.3  # inches: what is no wider is not reduced on a phone, so that its letters stay legible
_CELL = 0.42  # inches that an accuracy and an index need
_LETTERS = 7.5  # points of the smallest letters: 10 pixels


def map_figure(accuracies: Sequence[float | None], grid: tuple[int, ...], chance: float) -> Figure:
    """Draw the accuracy of each subdomain at its place in the grid, one panel per layer of a 3-D grid.

    The shade runs from the chance level (none) to the best subdomain (full).
    """
    values = np.array([np.nan if a is None else a for a in accuracies]).reshape((1, 1, *grid)[-3:])
    layers, rows, columns = values.shape
    across = max(1, min(layers, 4, int((_WIDTH + 0.3) / (columns * _CELL + 0.3))))
    down = math.ceil(layers / across)
    best = np.nanmax(values, initial=chance)
    levels = np.clip((values - chance) / max(best - chance, 1e-9), 0, 1)
    cell = min(0.8, (_WIDTH - 0.3 * (across - 1)) / (across * columns), 4.6 / rows)
    width, height = across * columns * cell + 0.3 * (across - 1) + 0.2, down * (rows * cell + 0.3 * (layers > 1)) + 0.1
    with style():
        figure = Figure(figsize=(max(width, 1.5), height), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for layer, axes in zip(range(layers), panels.flat, strict=False):
            axes.imshow(shades(0.08 + 0.92 * levels[layer]))
            axes.set_anchor("W")
            _cell_borders(axes, rows, columns)
            if layers > 1:
                axes.set_title(f"depth layer {layer}", fontsize=8.5)
            for row, column in np.ndindex(rows, columns):
                index = (layer * rows + row) * columns + column
                tint = ink_on(0.08 + 0.92 * float(np.nan_to_num(levels[layer, row, column])))
                _cell_text(axes, (row, column), values[layer, row, column], index=index, tint=tint, cell=cell)
    return figure


def place_figure(
    values: Sequence[float | None], grid: tuple[int, ...], footprints: np.ndarray | None, chance: float
) -> Figure | None:
    """Draw a value of each subdomain at its place: in the grid, or else in the image; None if they have none.

    What comes behind the grid, or sees the whole image, has no place.
    """
    cells = math.prod(grid) if grid else 0
    if cells:
        fits = 2 <= cells <= len(values) and len(grid) <= 3 and any(value is not None for value in values[:cells])
        return map_figure(values[:cells], grid, chance) if fits else None
    if footprints is None or footprints.ndim != 3:
        return None
    masks = footprints != 0
    chosen = [n for n, mask in enumerate(masks) if not mask.all() and values[n] is not None]
    return area_figure({n: float(values[n] or 0) for n in chosen}, masks, chance) if len(chosen) > 1 else None


def area_figure(values: Mapping[int, float], masks: np.ndarray, chance: float) -> Figure:
    """Draw values of subdomains where they lie in the image, (N, H, W) masks; where several lie, their mean.

    The shade runs from the chance level (none) to the best subdomain (full).
    """
    H, W = masks.shape[1:]
    total, cover = np.zeros((H, W)), np.zeros((H, W), int)
    for n, value in values.items():
        total[masks[n]] += value
        cover[masks[n]] += 1
    best = max(*values.values(), chance)
    mean = np.where(cover > 0, total / np.maximum(cover, 1), np.nan)
    levels = 0.08 + 0.92 * np.clip((mean - chance) / max(best - chance, 1e-9), 0, 1)
    scale = 2.8 / max(H, W)
    with style():
        figure = Figure(figsize=(max(W * scale, 1.5), H * scale), layout="constrained")
        axes = figure.subplots()
        show(axes, shades(levels), (H, W))
        outlines(axes, [masks[n] for n in values], [], tints=(PAPER,))
        for n, value in values.items() if len(values) <= 36 else ():
            y, x = inner_point(masks[n])
            tint = ink_on(float(levels[int(y), int(x)]))
            axes.text(x, y, f"{100 * value:.1f}", ha="center", va="center", fontsize=8, color=tint)
            axes.annotate(
                str(n), (x, y), (0, 6), textcoords="offset points", ha="center", va="bottom", fontsize=6, color=tint,
                alpha=0.8,
            )  # fmt: skip
    return figure


def confusion_figure(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix, (K, K) counts with rows = true class; the shade is the share of the row.

    Counts are written for up to `MOST_NUMBERS` classes.
    """
    K = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    text = [[str(value) for value in row] for row in matrix] if writes_counts(matrix) else None
    side = min(2.5, max(0.42 * K, 1.2))
    labels = ("predicted class", "true class")
    size = (min(_WIDTH + 0.15, side + 1.3), side + 1.0)
    return _table(shares, text=text, rows=classes, columns=classes, labels=labels, size=size)


def writes_counts(matrix: np.ndarray) -> bool:
    """Return whether the cells of a confusion matrix hold their counts: whether these fit."""
    digits = len(str(int(matrix.max(initial=0))))
    return len(matrix) <= MOST_NUMBERS and digits * len(matrix) <= 40


def class_figure(accuracies: np.ndarray, classes: Sequence[str], indices: Sequence[int]) -> Figure:
    """Draw the accuracy of each local CNN on each class, (N, K) fractions; NaN is empty.

    ``indices`` are the N subdomain indices.
    """
    N, K = accuracies.shape
    fits = N <= 16 and K <= 8
    text = [[f"{100 * v:.0f}" if np.isfinite(v) else "-" for v in row] for row in accuracies] if fits else None
    names = [f"subdomain {index}" for index in indices]
    size = (min(_WIDTH + 0.15, 1.5 + 0.46 * K), 0.9 + min(5.2, 0.3 * N))
    return _table(accuracies, text=text, rows=names, columns=classes, labels=("class", ""), size=size, aspect="auto")


def _table(
    shares: np.ndarray,
    *,
    text: Sequence[Sequence[str]] | None,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    size: tuple[float, float],
    aspect: Literal["equal", "auto"] = "equal",
) -> Figure:
    with style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.imshow(shades(shares), aspect=aspect, extent=(-0.5, len(columns) - 0.5, len(rows) - 0.5, -0.5))
        shown = ticks(len(columns), 16)
        axes.set_xticks(shown, [_short(columns[i]) for i in shown], rotation=_rotation(columns))
        shown = ticks(len(rows), 16 if aspect == "equal" else 32)
        axes.set_yticks(shown, [_short(rows[i]) for i in shown])
        axes.tick_params(labelsize=_LETTERS, labelcolor=INK)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        for spine in axes.spines.values():
            spine.set_visible(True)
        for i, row in enumerate(text or ()):
            for j, value in enumerate(row):
                tint = ink_on(shares[i, j]) if value != "0" else MUTED
                axes.text(j, i, value, ha="center", va="center", fontsize=_LETTERS, color=tint, in_layout=False)
    return figure


def _cell_borders(axes: Axes, rows: int, columns: int) -> None:
    for row in range(1, rows):
        axes.axhline(row - 0.5, color=PAPER, linewidth=2)
    for column in range(1, columns):
        axes.axvline(column - 0.5, color=PAPER, linewidth=2)


def _cell_text(axes: Axes, place: tuple[int, int], value: float, *, index: int, tint: str, cell: float) -> None:
    row, column = place
    if cell < 0.2:
        return
    text = "-" if not np.isfinite(value) else f"{100 * value:.1f}" if cell > 0.35 else f"{100 * value:.0f}"
    font, named = min(11, max(_LETTERS, 4 + 10 * cell)), cell >= _CELL - 0.01
    axes.text(column, row + 0.12 * named, text, ha="center", va="center", fontsize=font, color=tint)
    if named:
        axes.text(column - 0.43, row - 0.42, str(index), ha="left", va="top", fontsize=_LETTERS, color=tint)


def _rotation(names: Sequence[str]) -> int:
    return 90 if max(map(len, names), default=0) > 3 or len(names) > 16 else 0


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"

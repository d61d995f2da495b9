"""Pixels and boxes on axes: what drawings of images and of volumes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

Box = Sequence[Sequence[int]]
"""(start, stop) in pixels, one pair per axis."""

_LONGEST = 256
"""Pixels along an axis that are kept for display."""
LINE = "#ffc145"
_SCATTERED = 3  # edges per pixel; a single pixel has four
_OVERLAP = np.array((255, 193, 69, 90), np.uint8)
_LABEL = {"boxstyle": "round,pad=0.2", "facecolor": "#000000", "alpha": 0.75, "linewidth": 0}


def show(axes: Axes, pixels: np.ndarray, size: tuple[int, ...]) -> None:
    """Show pixels; long axes are thinned, coordinates stay those of the image."""
    steps = [max(1, -(-length // _LONGEST)) for length in pixels.shape[:2]]
    axes.imshow(pixels[:: steps[0], :: steps[1]], extent=(0, size[1], size[0], 0))
    axes.set_axis_off()


def overlay(axes: Axes, boxes: Mapping[int, Box], size: tuple[int, ...], *, shaded: bool = True) -> None:
    """Draw boxes and their indices over an image; shade where they overlap."""
    cover = np.zeros(size, int)
    line = 1.2 if len(boxes) <= 16 else 0.8
    for (top, bottom), (left, right) in boxes.values():
        cover[top:bottom, left:right] += 1
        for tint, width in (("#000000", 2.2 * line), (LINE, line)):
            place = (left, top), right - left, bottom - top
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=tint, linewidth=width, clip_on=False))
    if shaded and (cover > 1).any():
        show(axes, np.where((cover > 1)[..., None], _OVERLAP, np.uint8(0)), size)
    if len(boxes) <= 100:
        font = float(np.clip(11 - 0.6 * len(boxes) ** 0.5, 7.5, 9))
        for index, ((top, bottom), (left, right)) in boxes.items():
            axes.text(
                (left + right) / 2, (top + bottom) / 2, str(index), ha="center", va="center", fontsize=font,
                color="#ffffff", bbox=_LABEL,
            )  # fmt: skip


def shade_overlap(axes: Axes, masks: Sequence[np.ndarray]) -> None:
    """Shade the pixels that belong to more than one mask (H, W)."""
    if masks and (shared := np.sum(masks, 0) > 1).any():
        show(axes, np.where(shared[..., None], _OVERLAP, np.uint8(0)), shared.shape)


def outlines(
    axes: Axes, masks: Sequence[np.ndarray], indices: Sequence[int], tints: Sequence[str] = ("#000000", LINE)
) -> None:
    """Draw the outlines of masks (H, W), which run where two neighbours differ, and their ``indices`` over an image.

    Masks of scattered pixels, such as every second one, have no outline; then none is drawn.
    """
    edges = [_edges(seen) for seen in masks]
    if any(len(lines) > _SCATTERED * seen.sum() for lines, seen in zip(edges, masks, strict=True)):
        return
    for lines in edges:
        for tint, width in zip(tints, (2.0, 0.9), strict=False):
            axes.add_collection(LineCollection(lines, colors=tint, linewidths=width))
    for index, seen in zip(indices, masks, strict=False):
        if seen.any():
            y, x = inner_point(seen)
            label(axes, x, y, index)


def _edges(seen: np.ndarray) -> list[Any]:
    """Return the edges of pixels at which a mask ends, as pairs of points (x, y)."""
    padded = np.pad(seen, 1).astype(int)
    rows, columns = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    across = [((column, row), (column + 1, row)) for row, column in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(np.diff(padded, axis=1)[1:-1])
    down = [((column, row), (column, row + 1)) for row, column in zip(rows, columns, strict=True)]
    return [*across, *down]


def label(axes: Axes, x: float, y: float, index: int) -> None:
    """Write the index of a subdomain."""
    axes.text(x, y, str(index), ha="center", va="center", fontsize=7, color="#ffffff", bbox=_LABEL)


def inner_point(mask: np.ndarray) -> tuple[float, float]:
    """Return the (row, column) deepest in a mask: a label there lies in it, whatever its shape."""
    from scipy.ndimage import distance_transform_edt  # a dependency of scikit-learn; slow to import

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth > depth.max() - 0.5)
    nearest = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
    return float(rows[nearest]) + 0.5, float(columns[nearest]) + 0.5


def limits_of(image: np.ndarray) -> tuple[float, float]:
    """Return the values that are shown black and white."""
    return (0.0, 255.0) if image.dtype == np.uint8 else (float(image.min()), float(image.max()))


def displayable(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return (H, W, 4) uint8 from (C, H, W), black at the lower limit and white at the upper one."""
    low, high = limits
    channels = (image if len(image) == 3 else image[[0, 0, 0]]).astype(np.float64)
    channels = np.round(255 * (channels - low) / max(high - low, 1e-12)).astype(np.uint8)
    return np.moveaxis(np.concatenate([channels, np.full_like(channels[:1], 255)]), 0, -1)

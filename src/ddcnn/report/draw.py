"""Draw a decomposition over a sample image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ddcnn.errors import DataError, DecompositionError
from ddcnn.report.svg import style

Box = Sequence[Sequence[int]]
"""(start, stop) in pixels, one pair per axis."""

_LONGEST = 256
"""Pixels along an axis that are kept for display."""
_LINE = "#ffc145"
_OVERLAP = np.array((255, 193, 69, 90), np.uint8)
_LABEL = {"boxstyle": "round,pad=0.2", "facecolor": "#000000", "alpha": 0.6, "linewidth": 0}


def draw_decomposition(image: np.ndarray, boxes: Sequence[Box]) -> Figure:
    """Draw subdomains over an image.

    A 2-D image is shown with the boxes and indices of its subdomains, their overlap shaded, and beside it the
    subimages apart from each other. Of a volume, one slice per axis is shown, as near to the
    centre as lies outside the overlap. A box that covers the whole
    image (a coarse level) is not drawn, unless it is the only one.

    Parameters
    ----------
    image
        (C, H, W) or (C, D, H, W); uint8, or floats of any range. Three channels are red, green and blue; of any
        other number the first is shown.
    boxes
        N boxes, in the order of the subdomain indices.

    Raises
    ------
    DataError
        The image has another number of axes.
    DecompositionError
        A box does not lie in the image.
    """
    image = np.asarray(image)
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise DataError(f"expected an image (C, H, W) or (C, D, H, W), got shape {image.shape}")
    size = image.shape[1:]
    for index, box in enumerate(boxes):
        if len(box) != len(size) or not all(0 <= a < b <= s for (a, b), s in zip(box, size, strict=True)):
            raise DecompositionError(f"subdomain {index}: box {[list(pair) for pair in box]} is not in an image {size}")
    whole = [(0, s) for s in size]
    parts = {i: box for i, box in enumerate(boxes) if [tuple(pair) for pair in box] != whole} or dict(enumerate(boxes))
    with style():
        return _draw_2d(image, parts) if len(size) == 2 else _draw_3d(image, parts)


def _draw_2d(image: np.ndarray, boxes: Mapping[int, Box]) -> Figure:
    pixels = _displayable(image, _limits(image))
    H, W = pixels.shape[:2]
    exploded = _explode(pixels, list(boxes.values()))
    scale = (1.9 if len(boxes) <= 16 else 4.0) / max(H, W)
    ratio = exploded.shape[1] / exploded.shape[0]
    figure = Figure(figsize=(W * scale + H * scale * ratio + 0.15, H * scale + 0.05))
    left, right = figure.subplots(1, 2, width_ratios=[W / H, ratio])
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06)
    _show(left, pixels, (H, W))
    _overlay(left, boxes, (H, W))
    _show(right, exploded, exploded.shape[:2])
    return figure


def _draw_3d(image: np.ndarray, boxes: Mapping[int, Box]) -> Figure:
    size, limits = image.shape[1:], _limits(image)
    names = ("depth", "row", "column")
    planes = [(axis, *(other for other in range(3) if other != axis)) for axis in range(3)]
    widths = [size[w] / size[h] for _, h, w in planes]
    height = min(2.2, 6.9 / sum(widths))
    figure = Figure(figsize=(height * sum(widths) + 0.3, height + 0.25))
    panels = figure.subplots(1, 3, width_ratios=widths)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.22 / (height + 0.25), wspace=0.06)
    for axes, (axis, h, w) in zip(panels, planes, strict=True):
        centre = _slice([box[axis] for box in boxes.values()], size[axis])
        cut = {i: (box[h], box[w]) for i, box in boxes.items() if box[axis][0] <= centre < box[axis][1]}
        _show(axes, _displayable(np.take(image, centre, axis=axis + 1), limits), (size[h], size[w]))
        _overlay(axes, cut, (size[h], size[w]))
        axes.set_title(f"{names[axis]} {centre} of {size[axis]}", fontsize=8)
    return figure


def _slice(intervals: Sequence[Sequence[int]], length: int) -> int:
    """Return the position nearest to the centre that the fewest intervals cover: a slice outside the overlap.

    >>> _slice([(0, 6), (4, 10)], 10)
    6
    """
    distinct = {(start, stop) for start, stop in intervals}
    cover = [sum(start <= i < stop for start, stop in distinct) or len(distinct) + 1 for i in range(length)]
    return min(range(length), key=lambda i: (cover[i], abs(i - length // 2)))


def _show(axes: Axes, pixels: np.ndarray, size: tuple[int, ...]) -> None:
    """Show pixels; long axes are thinned, coordinates stay those of the image."""
    steps = [max(1, -(-length // _LONGEST)) for length in pixels.shape[:2]]
    axes.imshow(pixels[:: steps[0], :: steps[1]], extent=(0, size[1], size[0], 0))
    axes.set_axis_off()


def _overlay(axes: Axes, boxes: Mapping[int, Box], size: tuple[int, ...]) -> None:
    cover = np.zeros(size, int)
    line = 1.2 if len(boxes) <= 16 else 0.8
    for (top, bottom), (left, right) in boxes.values():
        cover[top:bottom, left:right] += 1
        for tint, width in (("#000000", 2.2 * line), (_LINE, line)):
            place = (left, top), right - left, bottom - top
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=tint, linewidth=width, clip_on=False))
    if (cover > 1).any():
        _show(axes, np.where((cover > 1)[..., None], _OVERLAP, np.uint8(0)), size)
    if len(boxes) <= 100:
        font = float(np.clip(11 - 0.6 * len(boxes) ** 0.5, 4.5, 9))
        for index, ((top, bottom), (left, right)) in boxes.items():
            axes.text(
                (left + right) / 2, (top + bottom) / 2, str(index), ha="center", va="center", fontsize=font,
                color="#ffffff", bbox=_LABEL,
            )  # fmt: skip


def _explode(pixels: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return an (h, w, 4) image of all subimages with transparent gaps between them."""
    gap = max(1, round(0.045 * max(pixels.shape[:2])))
    offsets = [_offsets([box[axis] for box in boxes], gap) for axis in (0, 1)]
    h, w = (max(offsets[axis][box[axis][0]] + box[axis][1] - box[axis][0] for box in boxes) for axis in (0, 1))
    canvas = np.zeros((h, w, 4), np.uint8)
    for (top, bottom), (left, right) in boxes:
        y, x = offsets[0][top], offsets[1][left]
        canvas[y : y + bottom - top, x : x + right - left] = pixels[top:bottom, left:right]
    return canvas


def _offsets(intervals: Sequence[Sequence[int]], gap: int) -> dict[int, int]:
    """Return where each start lies once all intervals are laid one after the other.

    >>> _offsets([(0, 5), (4, 9), (0, 5)], gap=2)
    {0: 0, 4: 7}
    """
    length: dict[int, int] = {}
    for start, stop in intervals:
        length[start] = max(length.get(start, 0), stop - start)
    offsets, place = {}, 0
    for start in sorted(length):
        offsets[start] = place
        place += length[start] + gap
    return offsets


def _limits(image: np.ndarray) -> tuple[float, float]:
    return (0.0, 255.0) if image.dtype == np.uint8 else (float(image.min()), float(image.max()))


def _displayable(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return (H, W, 4) uint8 from (C, H, W), black at the lower limit and white at the upper one."""
    low, high = limits
    channels = (image if len(image) == 3 else image[[0, 0, 0]]).astype(np.float64)
    channels = np.round(255 * (channels - low) / max(high - low, 1e-12)).astype(np.uint8)
    return np.moveaxis(np.concatenate([channels, np.full_like(channels[:1], 255)]), 0, -1)

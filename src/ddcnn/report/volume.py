"""Draw a decomposed volume: three slices, and the whole as a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.transforms import Affine2D

from ddcnn.report.image_axes import LINE, Box, displayable, limits_of, outlines, overlay, show

_NAMES = ("depth", "row", "column")
_RECEDE = np.array((0.45, -0.32))  # how a row behind another one lies: to the right and up, in pixels
_RED = np.array((230, 30, 40, 110), np.uint8)


def draw_volume(
    image: np.ndarray,
    boxes: Mapping[int, Box],
    mask: np.ndarray | None,
    plane: tuple[int, int],
    footprints: np.ndarray | None = None,
) -> Figure:
    """Draw a volume (C, *S) with the boxes or outlines of its subdomains: see `ddcnn.report.draw_decomposition`."""
    order = _depth_first(plane)
    masks = [] if footprints is None else [one.transpose(order) != 0 for one in footprints]
    parts = [n for n, seen in enumerate(masks) if not seen.all()]
    image = image.transpose(0, *(axis + 1 for axis in order))
    mask = None if mask is None or not mask.any() else np.asarray(mask.transpose(order) != 0)
    boxes = {i: [box[axis] for axis in order] for i, box in boxes.items()}
    size, limits = image.shape[1:], limits_of(image)
    planes = [(axis, *(other for other in range(3) if other != axis)) for axis in range(3)]
    widths = [size[w] / size[h] for _, h, w in planes]
    block = _block_size(size)
    widths.append(block[0] / block[1])
    height = min(2.2, 6.9 / sum(widths))
    figure = Figure(figsize=(height * sum(widths) + 0.3, height + 0.25))
    panels = figure.subplots(1, 4, width_ratios=widths)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.22 / (height + 0.25), wspace=0.06)
    for axes, (axis, h, w) in zip(panels, planes, strict=False):
        at = _slice([box[axis] for box in boxes.values()], size[axis])
        if mask is not None:
            at = int(mask.sum((h, w)).argmax())
        cut = {i: (box[h], box[w]) for i, box in boxes.items() if box[axis][0] <= at < box[axis][1]}
        show(axes, displayable(np.take(image, at, axis=axis + 1), limits), (size[h], size[w]))
        if mask is not None:
            show(axes, np.where(mask.take(at, axis)[..., None], _RED, np.uint8(0)), (size[h], size[w]))
        overlay(axes, cut, (size[h], size[w]))
        outlines(axes, [masks[n].take(at, axis) for n in parts], parts)
        axes.set_title(f"{_NAMES[axis]} {at} of {size[axis]}", fontsize=8)
    _draw_block(panels[3], image, list(boxes.values()), mask)
    return figure


def _draw_block(axes: Axes, image: np.ndarray, boxes: Sequence[Box], mask: np.ndarray | None) -> None:
    """Draw the volume from its front, right and top, with the mean along each axis on its faces."""
    D, H, W = image.shape[1:]
    right, down = np.array((1.0, 0.0)), np.array((0.0, 1.0))
    # what a face averages over, its two axes, its first corner, where one pixel along each of them leads
    faces = (
        (1, (0, 2), np.zeros(2), down, right),
        (0, (1, 2), np.zeros(2), _RECEDE, right),
        (2, (0, 1), W * right, down, _RECEDE),
    )
    for over, (h, w), corner, along_h, along_w in faces:
        place = Affine2D(np.array([[*column, 0] for column in (along_w, along_h)] + [[*corner, 1]]).T)
        mean = image.mean(over + 1)
        layers = [displayable(mean, (float(mean.min()), float(mean.max())))]
        if mask is not None:
            layers.append(np.where(np.asarray(mask.any(over))[..., None], _RED, np.uint8(0)))
        for layer in layers:
            show(axes, layer, (image.shape[h + 1], image.shape[w + 1]))
            axes.images[-1].set_transform(place + axes.transData)
        outlines = {(tuple(box[h]), tuple(box[w])) for box in boxes}
        for (top, bottom), (left, end) in sorted(outlines):
            corners = np.array(((left, top), (end, top), (end, bottom), (left, bottom)))
            points = place.transform(corners)
            axes.add_patch(Polygon(points, fill=False, edgecolor=LINE, linewidth=0.8, clip_on=False))
    width, height = _block_size((D, H, W))
    axes.set(xlim=(0, width), ylim=(D, D - height), aspect="equal")
    axes.set_title("the whole, averaged", fontsize=8)


def _block_size(size: tuple[int, ...]) -> tuple[float, float]:
    D, H, W = size
    return W + H * float(_RECEDE[0]), D - H * float(_RECEDE[1])


def _depth_first(plane: tuple[int, int]) -> tuple[int, int, int]:
    rows, columns = (axis % 3 for axis in plane)
    return 3 - rows - columns, rows, columns


def _slice(intervals: Sequence[Sequence[int]], length: int) -> int:
    """Return the position nearest to the centre that the fewest intervals cover: a slice outside the overlap.

    >>> _slice([(0, 6), (4, 10)], 10)
    6
    """
    distinct = {(start, stop) for start, stop in intervals}
    cover = [sum(start <= i < stop for start, stop in distinct) or len(distinct) + 1 for i in range(length)]
    return min(range(length), key=lambda i: (cover[i], abs(i - length // 2)))

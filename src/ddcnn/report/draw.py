"""Draw a decomposition over a sample image or volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ddcnn.errors import DataError, DecompositionError
from ddcnn.report.image_axes import Box, displayable, limits_of, outlines, overlay, show
from ddcnn.report.svg import style
from ddcnn.report.volume import draw_volume


def draw_decomposition(
    image: np.ndarray,
    boxes: Sequence[Box],
    *,
    footprints: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    plane: tuple[int, int] = (-2, -1),
) -> Figure:
    """Draw subdomains over an image.

    A 2-D image is shown with the boxes and indices of its subdomains, their overlap shaded, and beside it the
    subimages apart from each other. Of a volume, one slice per axis is shown, as near to the centre as lies outside
    the overlap, and then the whole as a block, with the mean along each axis on its faces. A box that covers the whole
    image (a coarse level) is not drawn, unless it is the only one.

    Parameters
    ----------
    image
        (C, H, W) or (C, D, H, W); uint8, or floats of any range. Three channels are red, green and blue; of any
        other number the first is shown.
    boxes
        N boxes, in the order of the subdomain indices.
    footprints
        (N, H, W): not zero where a subdomain sees an image, if that is not all of its box.
    mask
        Of a volume, (D, H, W): what is not zero is shown in red, and the slices go through the most of it.
    plane
        The axes of the slices of a volume, which are drawn as rows and columns; the third axis is its depth.

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
        if footprints is not None and len(size) == 2:
            return _draw_footprints(image, boxes, footprints != 0)
        return _draw_2d(image, parts) if len(size) == 2 else draw_volume(image, parts, mask, plane)


def _draw_2d(image: np.ndarray, boxes: Mapping[int, Box]) -> Figure:
    pixels = displayable(image, limits_of(image))
    H, W = pixels.shape[:2]
    exploded = _explode(pixels, list(boxes.values()))
    scale = (1.55 if len(boxes) <= 16 else 4.0) / max(H, W)
    ratio = exploded.shape[1] / exploded.shape[0]
    figure = Figure(figsize=(W * scale + H * scale * ratio + 0.15, H * scale + 0.05))
    left, right = figure.subplots(1, 2, width_ratios=[W / H, ratio])
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06)
    show(left, pixels, (H, W))
    overlay(left, boxes, (H, W))
    show(right, exploded, exploded.shape[:2])
    return figure


def _draw_footprints(image: np.ndarray, boxes: Sequence[Box], footprints: np.ndarray) -> Figure:
    """Draw the outlines of subdomains of any shape, and beside it what each sees, row by row."""
    pixels = displayable(image, limits_of(image))
    H, W = pixels.shape[:2]
    columns = int(np.ceil(len(boxes) ** 0.5))
    gap, rows = max(1, round(0.045 * max(H, W))), -(-len(boxes) // columns)
    tiles = np.zeros((rows * (H + gap) - gap, columns * (W + gap) - gap, 4), np.uint8)
    for index, seen in enumerate(footprints):
        top, left = (index // columns) * (H + gap), (index % columns) * (W + gap)
        tiles[top : top + H, left : left + W] = np.where(seen[..., None], pixels, 0)
    ratio = tiles.shape[1] / tiles.shape[0]
    scale = 3.0 / max(H, W)
    figure = Figure(figsize=(W * scale + H * scale * ratio + 0.15, H * scale + 0.05))
    left_axes, right = figure.subplots(1, 2, width_ratios=[W / H, ratio])
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06)
    show(left_axes, pixels, (H, W))
    outlines(left_axes, footprints)
    show(right, tiles, tiles.shape[:2])
    return figure


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

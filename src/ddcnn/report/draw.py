"""Draw a decomposition over a sample image or volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ddcnn.errors import DataError, DecompositionError
from ddcnn.report.image_axes import Box, displayable, label, limits_of, outlines, overlay, shade_overlap, show
from ddcnn.report.svg import style
from ddcnn.report.volume import draw_volume

_UNSEEN = np.array((128, 128, 128, 45), np.uint8)


def draw_decomposition(
    image: np.ndarray,
    boxes: Sequence[Box],
    *,
    footprints: np.ndarray | None = None,
    subimages: Mapping[int, np.ndarray] | None = None,
    mask: np.ndarray | None = None,
    plane: tuple[int, int] = (-2, -1),
) -> Figure:
    """Draw subdomains over an image.

    A 2-D image is shown with the boxes, or outlines, and indices of its subdomains, their overlap shaded, and beside it
    the subimages apart from each other. Of a volume, one slice per axis is shown, as near to the centre as lies outside
    the overlap, and then the whole as a block, with the mean along each axis on its faces. A box that covers the whole
    image (a coarse level) is not drawn, unless it is the only one; its subimage is.

    Parameters
    ----------
    image
        (C, H, W) or (C, D, H, W); uint8, or floats of any range. Three channels are red, green and blue; of any
        other number the first is shown.
    boxes
        N boxes, in the order of the subdomain indices.
    footprints
        (N, *S): not zero where a subdomain sees an image, if that is not all of its box.
    subimages
        (C, *s), by index, of subdomains that do not just see pixels of their box, where they lie.
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
    whole, other = [(0, s) for s in size], subimages or {}
    parts = {i: box for i, box in enumerate(boxes) if [tuple(pair) for pair in box] != whole} or dict(enumerate(boxes))
    as_boxes = footprints is None and not parts.keys() & other.keys()
    with style():
        if len(size) == 3:
            return draw_volume(image, parts if as_boxes else {}, mask, plane, footprints)
        if as_boxes:
            return _draw_2d(image, parts, other)
        return _draw_views(image, None if footprints is None else footprints != 0, other)


def _draw_2d(image: np.ndarray, boxes: Mapping[int, Box], coarse: Mapping[int, np.ndarray]) -> Figure:
    """Draw boxes over the image, and beside it the subimages; and then those of the coarse level, if there are."""
    limits = limits_of(image)
    pixels = displayable(image, limits)
    H, W = pixels.shape[:2]
    exploded = _explode(pixels, list(boxes.values()))
    scale = (1.55 if len(boxes) <= 16 else 4.0) / max(H, W)
    ratios = [W / H, exploded.shape[1] / exploded.shape[0], *[0.6 * W / H] * len(coarse)]
    figure = Figure(figsize=(H * scale * sum(ratios) + 0.15, H * scale + 0.05))
    left, right, *more = figure.subplots(1, len(ratios), width_ratios=ratios)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06)
    show(left, pixels, (H, W))
    overlay(left, boxes, (H, W))
    show(right, exploded, exploded.shape[:2])
    for axes, (index, subimage) in zip(more, coarse.items(), strict=True):
        seen = displayable(subimage, limits)
        show(axes, seen, seen.shape[:2])
        label(axes, 0.12 * seen.shape[1], 0.12 * seen.shape[0], index)
    return figure


def _draw_views(image: np.ndarray, masks: np.ndarray | None, subimages: Mapping[int, np.ndarray]) -> Figure:
    """Draw the outlines of subdomains of any shape, and beside it what each sees, row by row."""
    limits = limits_of(image)
    pixels = displayable(image, limits)
    H, W = pixels.shape[:2]
    shown: Sequence[np.ndarray] = [] if masks is None else list(masks)
    tiles = {n: np.where(seen[..., None], pixels, _UNSEEN) for n, seen in enumerate(shown)}
    tiles |= {n: _enlarged(displayable(seen, limits), (H, W)) for n, seen in subimages.items()}
    columns = int(np.ceil(len(tiles) ** 0.5))
    gap, rows = max(1, round(0.045 * max(H, W))), -(-len(tiles) // columns)
    canvas = np.zeros((rows * (H + gap) - gap, columns * (W + gap) - gap, 4), np.uint8)
    places = [((i // columns) * (H + gap), (i % columns) * (W + gap)) for i in range(len(tiles))]
    for (top, left), tile in zip(places, tiles.values(), strict=True):
        canvas[top : top + H, left : left + W] = tile
    ratio = canvas.shape[1] / canvas.shape[0]
    scale = 2.6 / max(H, W)
    figure = Figure(figsize=(W * scale + H * scale * ratio + 0.15, H * scale + 0.05))
    left_axes, right = figure.subplots(1, 2, width_ratios=[W / H, ratio])
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06)
    show(left_axes, pixels, (H, W))
    if masks is not None:
        parts = [n for n, seen in enumerate(masks) if not seen.all()] or list(range(len(masks)))
        shade_overlap(left_axes, [masks[n] for n in parts])
        outlines(left_axes, [masks[n] for n in parts], parts)
    show(right, canvas, canvas.shape[:2])
    if len(tiles) <= 100:
        for index, (top, left) in zip(tiles, places, strict=True):
            label(right, left + 0.09 * W, top + 0.09 * H, index)
    return figure


def _enlarged(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return pixels (h, w, 4) shown in a larger size, each as a rectangle."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, pixels.shape[:2], strict=True))
    return pixels[np.ix_(rows, columns)]


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

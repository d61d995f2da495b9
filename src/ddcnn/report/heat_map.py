"""Draw which pixels speak for a class, over the image or through the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddcnn.decomposition import Subdomain
from ddcnn.report.image_axes import Box, displayable, limits_of, overlay, show
from ddcnn.report.svg import style

_HEIGHT = 2.4  # inches of a row
_STRONGEST = 0.7  # opacity of the largest value
_NAMES = ("depth", "row", "column")
Cut = tuple[int | None, int, int]  # the axis that is cut across, and those drawn as rows and columns
_CUTS: dict[int, list[Cut]] = {2: [(None, 0, 1), (None, 0, 1)], 3: [(0, 1, 2), (1, 0, 2), (2, 0, 1)]}  # by axes


def shown_boxes(subdomains: Sequence[Subdomain]) -> dict[int, Box]:
    """Return the boxes of those subdomains that see just their box, by index."""
    return {s.index: s.box for s in subdomains if s.inside is None and s.shape == tuple(b - a for a, b in s.box)}


def draw_heat_maps(
    images: Sequence[np.ndarray], maps: Sequence[np.ndarray], titles: Sequence[str], boxes: Mapping[int, Box]
) -> Figure:
    """Draw a row per image: the image, and over it its heat map and its subdomains.

    Of a volume, one slice along each axis is shown: those through the largest value.

    Parameters
    ----------
    images
        Each (C, H, W) or (C, D, H, W), uint8 or floats; of other than three channels, the first is shown.
    maps
        Each (H, W) or (D, H, W), at least 0; the largest value of a map is drawn strongest.
    titles
        What is said above each row.
    boxes
        Of the subdomains that see just their box, by index.
    """
    size = images[0].shape[1:]
    parts = boxes if len(boxes) > 1 else {}
    cuts = _CUTS[len(size)]
    widths = [size[w] / size[h] for _, h, w in cuts]
    with style():
        figure = Figure(figsize=(_HEIGHT * sum(widths) + 0.3, (_HEIGHT + 0.3) * len(images)))
        rows = figure.subplots(len(images), len(cuts), width_ratios=widths, squeeze=False)
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.01, top=1 - 0.12 / len(images), wspace=0.05, hspace=0.15)
        for panels, image, heat, title in zip(rows, images, maps, titles, strict=True):
            panels[0].set_title(title, fontsize=9)
            for index, (axes, cut) in enumerate(zip(panels, cuts, strict=True)):
                _draw(axes, image, heat if index or len(size) == 3 else None, cut, parts)
    return figure


def _draw(axes: Axes, image: np.ndarray, heat: np.ndarray | None, cut: Cut, boxes: Mapping[int, Box]) -> None:
    across, h, w = cut
    size, limits = image.shape[1:], limits_of(image)
    strongest = 1.0 if heat is None else float(heat.max()) or 1.0
    if across is not None and heat is not None:
        at = int(np.unravel_index(int(heat.argmax()), heat.shape)[across])
        image, heat = image.take(at, across + 1), heat.take(at, across)
        boxes = {n: (box[h], box[w]) for n, box in boxes.items() if box[across][0] <= at < box[across][1]}
        axes.text(0.02, 0.02, f"{_NAMES[across]} {at}", transform=axes.transAxes, fontsize=7, color="#ffffff")
    if heat is None:
        show(axes, displayable(image, limits), (size[h], size[w]))
        return
    grey = image.mean(0, keepdims=True) if len(image) == 3 else image  # so that all colours are those of the map
    show(axes, displayable(grey, limits), (size[h], size[w]))
    colours = mpl.colormaps["inferno"](heat / strongest)
    colours[..., 3] = _STRONGEST * np.clip(heat / strongest, 0, 1)
    show(axes, np.round(255 * colours).astype(np.uint8), (size[h], size[w]))
    overlay(axes, boxes, (size[h], size[w]), shaded=False)

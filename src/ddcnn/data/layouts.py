"""Arrays of images: which axis is what, and which type they become. One rule for files and for arrays in memory.

========  ==========================================================================
axes      read as, unless a layout is told
========  ==========================================================================
3         ``NHW``: greyscale images
4         ``NHWC`` if the last axis has 1, 3 or 4 entries, else ``NDHW``: volumes
5         ``NDHWC``: volumes with channels
========  ==========================================================================

A layout is a string of the letters N, C, D, H, W in the order of the axes. Where the second axis has 1, 3 or 4 entries
and the last has not, channels may come first, and a layout must say what is what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddcnn.errors import DataError

_LAYOUTS = ("HW", "CHW", "DHW", "CDHW")
_CHANNELS = (1, 3, 4)


def axis_order(name: str, shape: Sequence[int], layout: str | None, how: str = "") -> str:
    """Return the letters of the axes of images, such as ``"NHWC"``.

    Parameters
    ----------
    name
        What messages call the images.
    layout
        As it was told, in any case; None: to be recognised.
    how
        The end of the message where it cannot be recognised, with a place for a layout: how to tell it.

    Raises
    ------
    DataError
        The layout is none, or does not fit the shape, or must be told.

    >>> axis_order("X", (8, 28, 28), None), axis_order("X", (8, 3, 28, 28), "nchw")
    ('NHW', 'NCHW')
    """
    if layout is None:
        return _recognised(name, tuple(shape), how)
    order = layout.upper()
    if order[:1] != "N" or "".join(sorted(order[1:])) not in _LAYOUTS:
        raise DataError(f"{name}: layout should be N and then H, W and possibly C and D, got {order!r}")
    if len(order) != len(shape):
        raise DataError(f"{name}: layout {order} has {len(order)} axes, but the images have shape {tuple(shape)}")
    return order


def _recognised(name: str, shape: tuple[int, ...], how: str) -> str:
    if len(shape) not in (3, 4, 5):
        raise DataError(f"{name}: images should have shape (n, H, W), (n, H, W, C) or (n, D, H, W), got {shape}")
    last, first = shape[-1] in _CHANNELS, shape[1] in _CHANNELS
    if first and not last and len(shape) > 3:
        axes, other = ("NCHW", "NDHW") if len(shape) == 4 else ("NCDHW", "NDHWC")
        raise DataError(
            f"{name}: images of shape {shape} may have their channels first; give layout={axes!r}, or layout={other!r} "
            f"if axis 1 is the depth{how.format(axes)}"
        )
    return {3: "NHW", 4: "NHWC" if last else "NDHW", 5: "NDHWC"}[len(shape)]


@dataclass(frozen=True)
class Conversion:
    """What becomes of images, or of pieces of them: (m, C, [D,] H, W) of another type."""

    order: str
    dtype: np.dtype

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """Return converted images, a view where that is possible."""
        piece = piece.transpose([self.order.index(axis) for axis in "NCDHW" if axis in self.order])
        piece = piece if "C" in self.order else piece[:, None]
        with np.errstate(over="ignore"):  # becomes infinite, which is found at the door for all sources
            return piece.astype(self.dtype, copy=False)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape that images of a shape get.

        >>> Conversion("NHWC", np.dtype(np.uint8)).shape((8, 5, 6, 3))
        (8, 3, 5, 6)
        """
        size = dict(zip(self.order, shape, strict=True))
        return (size["N"], size.get("C", 1), *(size[axis] for axis in "DHW" if axis in size))


def check_kind(name: str, kind: np.dtype) -> None:
    """Raise a `DataError` unless pixels of a type are real numbers."""
    if kind.kind not in "buif":
        raise DataError(f"{name}: images should be numbers, got {kind}")


def check_range(name: str, images: np.ndarray, first: int = 0) -> None:
    """Raise a `DataError` if float32 cannot hold a finite value of images (m, ...), numbered from ``first``."""
    if images.dtype.kind != "f" or images.dtype.itemsize <= 4:
        return
    for i, image in enumerate(images, first):
        most = max(float(image.min(initial=0)), float(image.max(initial=0)), key=abs)
        if abs(most) > float(np.finfo(np.float32).max) and np.isfinite(image).all():
            raise DataError(f"{name}: image {i} holds values up to {most:g}, too large for float32; scale them")


def needs_look(kind: np.dtype) -> bool:
    """Tell whether integers of a type may lie outside 0..255: uint8 if all lie in it, else float32."""
    return kind.kind in "bui" and (kind.itemsize > 1 or kind.kind == "i")

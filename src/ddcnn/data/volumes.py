"""What all readers of volumes share: one orientation, one size, one range of values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from ddcnn.errors import DataError

ORIENTATION = "PLI"  # rows run to the back, columns to the left, slices downwards: as radiologists see them


def oriented(path: Path, values: Shaped[np.ndarray, "a b c"], affine: np.ndarray) -> Shaped[np.ndarray, "d h w"]:
    """Flip and exchange axes so that they run as `ORIENTATION` says, as nearly as that is without interpolation.

    Parameters
    ----------
    path
        Named in messages.
    affine
        (4, 4), from indices to millimetres to the right, to the front and upwards.

    Raises
    ------
    DataError
        The affine does not tell how the axes lie.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    ours = io_orientation(affine) if np.isfinite(affine).all() else np.array(np.nan)
    if not np.isfinite(ours).all():
        raise DataError(f"{path}: its affine does not tell how the axes lie; repair the header, or remove it")
    return np.asarray(apply_orientation(values, ornt_transform(ours, axcodes2ornt(tuple(ORIENTATION)))))


def finished(
    path: Path, values: Shaped[np.ndarray, "d h w"], size: Sequence[int] | None, window: tuple[float, float] | None
) -> Shaped[np.ndarray, "1 D H W"]:
    """Check the values of a volume, clip them to the window, resize, and scale: see `ddcnn.data.nifti.read_nifti`."""
    values = _single(path, values)
    low, high = float(values.min()), float(values.max())
    if window is not None:
        values = np.clip(values, *window)
    if size is not None:
        values = resized(values, size)
    if window is not None:
        values = np.round((values - window[0]) * (255 / (window[1] - window[0]))).clip(0, 255).astype(np.uint8)
        if int(values.max()) - int(values.min()) <= 1:
            raise DataError(
                f"{path} has values {low:g}..{high:g}, which are all alike in the window {window[0]:g}..{window[1]:g}; "
                "give them in the unit of the window, such as Hounsfield units"
            )
    return np.ascontiguousarray(values[None])


def scaled(values: Shaped[np.ndarray, "*S"], slope: float, intercept: float) -> Float[np.ndarray, "*S"]:
    """Return slope * values + intercept: in float64 where float32 cannot hold the values, else in float32."""
    kind = np.result_type(values.dtype, np.float32).type
    with np.errstate(over="ignore"):  # becomes infinite, which `finished` finds
        return np.asarray(values.astype(kind) * kind(slope) + kind(intercept))


def _single(path: Path, values: Shaped[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
    """Return the values of a volume as float32; a `DataError` if they are of no use, or float32 cannot hold them."""
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinity; remove it or replace the values")
    low, high = values.min(), values.max()
    if low == high:
        raise DataError(f"{path} is constant, {float(low):g} everywhere; remove it")
    most = max(float(low), float(high), key=abs)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise DataError(f"{path} holds values up to {most:g}, too large for float32; scale them")
    if single.min() == single.max():
        raise DataError(f"{path} differs by less than float32 can hold around {most:.2g}; subtract an offset")
    return single


def resized(values: Float[np.ndarray, "*S"], size: Sequence[int]) -> Float[np.ndarray, "*T"]:
    """Resize along each axis, linear, with antialiasing where it shrinks: what Pillow does with images ("bilinear").

    >>> resized(np.array([0.0, 4.0], np.float32), [4]).tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    order = sorted(range(len(size)), key=lambda axis: size[axis] / values.shape[axis])  # shrink first
    for axis in order:
        if size[axis] != values.shape[axis]:
            weights = _weights(values.shape[axis], size[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
    return values


def _weights(pixels: int, wanted: int) -> Float[np.ndarray, "m n"]:
    """Return how much each of n pixels counts in each of m: a triangle about its place, as wide as a step."""
    step = pixels / wanted
    centres = (np.arange(wanted) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(pixels)) / max(step, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return np.asarray((weights / weights.sum(1, keepdims=True)).astype(np.float32))

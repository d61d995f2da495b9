"""Photographs: what augmentation they are given where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CROP = 0.5
"""The smallest share of a photograph that a random crop shows."""

NOTE = (
    "colour images are taken for photographs: in training they are mirrored left and right and cropped at random; if "
    "that changes a class, such as a letter, training.flip=false and training.crop=1 leave it out"
)


def augmentation_of(shape: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a `ddcnn.data.Dataset` that allow it, for images (n, C, *S); nothing if it is no photograph.

    A photograph has three channels and two axes. Grey ones may be letters or X-rays, which have sides.

    >>> augmentation_of((10, 3, 64, 64)), augmentation_of((10, 1, 64, 64)), augmentation_of((10, 3, 8, 64, 64))
    ({'flip_axes': (1,), 'crop': 0.5}, {}, {})
    """
    return {"flip_axes": (1,), "crop": CROP} if len(shape) == 4 and shape[1] == 3 else {}


def notes_of(shape: Sequence[int]) -> tuple[str, ...]:
    """Return what a user is told of it."""
    return (NOTE,) if augmentation_of(shape) else ()

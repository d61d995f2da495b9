"""Sum, sum of squares, minimum and maximum of images: what a normalisation is made from."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

_PIECE = 2**16  # pixels summed at once: the sums of an image do not depend on how many images there are
_MOST = 2**22  # numbers in memory at once


def moments(images: Shaped[Tensor, "n C *S"], samples: Int64[Tensor, " m"] | None = None) -> Float64[Tensor, "m C 4"]:
    """Return sum, sum of squares, minimum and maximum of some images, per channel; None: of all.

    Those of an image are the same, bit by bit, whether it is measured alone or among others.

    >>> moments(torch.tensor([[[[1, 2], [3, 4]]]])).tolist()
    [[[10.0, 30.0, 1.0, 4.0]]]
    """
    pixels = images.flatten(2).numpy()
    chosen = None if samples is None else samples.numpy()
    found = np.empty((len(pixels) if chosen is None else len(chosen), pixels.shape[1], 4))
    step = max(1, _MOST // (pixels.shape[1] * min(pixels.shape[2], _PIECE)))
    for start in range(0, len(found), step):
        at = slice(start, start + step)
        found[at] = _moments(pixels[at if chosen is None else chosen[at]])
    return torch.from_numpy(found)


def _moments(pixels: np.ndarray) -> np.ndarray:
    found = np.zeros((*pixels.shape[:2], 4))
    found[..., 2], found[..., 3] = pixels.min(2), pixels.max(2)
    for start in range(0, pixels.shape[2], _PIECE):
        piece = pixels[..., start : start + _PIECE].astype(np.float64)
        found[..., 0] += piece.sum(2)
        found[..., 1] += np.square(piece, out=piece).sum(2)
    return found

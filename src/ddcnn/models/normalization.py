"""Raw pixels -> the numbers that a network sees."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

_PIECE = 2**16  # pixels summed at once: the sums of an image do not depend on how many images there are
_MOST = 2**22  # numbers in memory at once


class Normalization(nn.Module):
    """Subtract the mean and divide by the standard deviation, per channel.

    Parameters
    ----------
    mean, std
        (C,), in the units of the images (0..255 for uint8).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, "C"], std: Float[Tensor, "C"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    @classmethod
    def of(cls, images: Shaped[Tensor, "n C *S"]) -> Normalization:
        """Measure on images; a constant channel keeps its scale."""
        return cls.of_moments(moments(images), math.prod(images.shape[2:]))

    @classmethod
    def of_moments(cls, moments: Float64[Tensor, "n C 4"], pixels: int) -> Normalization:
        """Use what `moments` measured on images of so many pixels."""
        count = len(moments) * pixels
        total, squares = moments[..., 0].sum(0), moments[..., 1].sum(0)
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-6 * mean.abs().clamp_min(1e-6)] = 1
        return cls(mean.float(), std.float())

    def forward(self, x: Shaped[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Return normalised images in float32."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


def moments(images: Shaped[Tensor, "n C *S"]) -> Float64[Tensor, "n C 4"]:
    """Return sum, sum of squares, minimum and maximum of each image and channel.

    Those of an image are the same, bit by bit, whether it is measured alone or among others.

    >>> moments(torch.tensor([[[[1, 2], [3, 4]]]])).tolist()
    [[[10.0, 30.0, 1.0, 4.0]]]
    """
    pixels = images.flatten(2).numpy()
    found = np.empty((*pixels.shape[:2], 4))
    step = max(1, _MOST // (pixels.shape[1] * min(pixels.shape[2], _PIECE)))
    for start in range(0, len(pixels), step):
        found[start : start + step] = _moments(pixels[start : start + step])
    return torch.from_numpy(found)


def _moments(pixels: np.ndarray) -> np.ndarray:
    found = np.zeros((*pixels.shape[:2], 4))
    found[..., 2], found[..., 3] = pixels.min(2), pixels.max(2)
    for start in range(0, pixels.shape[2], _PIECE):
        piece = pixels[..., start : start + _PIECE].astype(np.float64)
        found[..., 0] += piece.sum(2)
        found[..., 1] += np.square(piece, out=piece).sum(2)
    return found

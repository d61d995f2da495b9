"""Raw pixels -> the numbers that a network sees."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


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
        """Measure on images, a thousand at a time; a constant channel keeps its scale."""
        axes = [0, *range(2, images.ndim)]
        total = torch.zeros(images.shape[1], dtype=torch.float64)
        squares = total.clone()
        for part in images.split(1000):
            values = part.double()
            total += values.sum(axes).cpu()
            squares += values.square().sum(axes).cpu()
        count = images[:, 0].numel()
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-6 * mean.abs().clamp_min(1e-6)] = 1
        return cls(mean.float(), std.float())

    def forward(self, x: Shaped[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Return normalised images in float32."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

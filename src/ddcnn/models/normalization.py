"""Raw pixels -> the numbers that a network sees."""

from __future__ import annotations

from jaxtyping import Float, Float64, Shaped
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
    def of_moments(cls, moments: Float64[Tensor, "n C 4"], pixels: int) -> Normalization:
        """Use what `ddcnn.data.moments` measured on images of so many pixels."""
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

"""Light jitter: the contrast and the brightness of each image, changed a little."""

from __future__ import annotations

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

_ONE = 1000  # factors and offsets count thousandths


def draw_colours(samples: int, strength: float, generator: torch.Generator) -> Int64[Tensor, "n 1 2"]:
    """Return for each sample (contrast, brightness) in thousandths, both uniform: 1 +- strength, and 0 +- strength."""
    drawn = (2 * torch.rand((samples, 1, 2), generator=generator) - 1) * strength
    return ((drawn + torch.tensor([1.0, 0.0])) * _ONE).round().long()


def recoloured(
    pixels: Shaped[Tensor, "B C *s"], colours: Int64[Tensor, "B 2"], mean: float, std: float
) -> Shaped[Tensor, "B C *s"]:
    """Return ``mean + contrast * (pixels - mean) + brightness * std``; bytes are rounded, and stay within 0..255.

    It acts on each pixel alone, so a subimage is changed as its image is.
    """
    contrast, brightness = (
        (colours[:, i].to(torch.float32) / _ONE).view(-1, *[1] * (pixels.ndim - 1)) for i in range(2)
    )
    offset = mean * (1 - contrast) + brightness * std
    changed = pixels.to(torch.float32) * contrast
    changed = changed + offset
    return changed if pixels.is_floating_point() else changed.round().clamp(0, 255).to(pixels.dtype)

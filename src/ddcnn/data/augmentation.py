"""Flips and shifts of whole images, on the device, before they are cut: all subdomains see the same image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.seeds import derive_seed


@dataclass(frozen=True)
class Augmentation:
    """Random mirror images and shifts by whole pixels; what a shift uncovers is filled by reflection.

    Attributes
    ----------
    flip_axes
        Spatial axes (0 = first) mirrored with probability 1/2 each.
    shift
        Largest shift along each axis, in pixels.
    """

    flip_axes: tuple[int, ...] = ()
    shift: int = 0

    def draw(self, *, samples: int, axes: int, seed: int, epoch: int) -> Int64[Tensor, "n axes 2"]:
        """Return for each sample and axis (flipped 0 or 1, shift): a function of (seed, epoch, sample) alone."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
        drawn = torch.rand((samples, axes, 2), generator=generator)
        allowed = torch.tensor([axis in self.flip_axes for axis in range(axes)])
        flips = (drawn[..., 0] < 0.5) & allowed
        shifts = (drawn[..., 1] * (2 * self.shift + 1)).long() - self.shift
        return torch.stack([flips.long(), shifts], -1)

    def apply(self, images: Shaped[Tensor, "B C *S"], moves: Int64[Tensor, "B axes 2"]) -> Shaped[Tensor, "B C *S"]:
        """Return the images, flipped and shifted by ``moves``."""
        return moved(images, moves) if self.flip_axes or self.shift else images


def moved(images: Shaped[Tensor, "B C *S"], moves: Int64[Tensor, "B axes 2"]) -> Shaped[Tensor, "B C *S"]:
    """Return images, flipped and shifted by ``moves``; what a shift uncovers is filled by reflection."""
    source = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)  # (B, pixels so far)
    for axis, pixels in enumerate(images.shape[2:]):
        position = origins(moves[:, axis], (0, pixels), pixels)
        source = (source.unsqueeze(2) * pixels + position.unsqueeze(1)).flatten(1)
    every_channel = source.unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, every_channel).view(images.shape)


def origins(moves: Int64[Tensor, "B 2"], interval: tuple[int, int], pixels: int) -> Int64[Tensor, "B m"]:
    """Return where the pixels of an interval come from, along one axis of an image that is flipped and shifted.

    Neighbouring pixels come from neighbouring pixels, so that an interval comes from an interval.

    >>> origins(torch.tensor([[1, 0], [0, 2]]), (0, 4), 8).tolist()
    [[7, 6, 5, 4], [2, 1, 0, 1]]
    """
    flipped, shift = moves[:, 0, None], moves[:, 1, None]
    position = _reflect(torch.arange(*interval, device=moves.device) - shift, pixels)
    return torch.where(flipped == 1, pixels - 1 - position, position)


def _reflect(position: Tensor, pixels: int) -> Tensor:
    """Mirror positions outside 0..pixels-1 at the border pixels, as torch's padding mode "reflect" does."""
    if pixels == 1:
        return torch.zeros_like(position)
    period = 2 * (pixels - 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position)

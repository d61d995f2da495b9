"""Flips, shifts and rotations of whole images, on the device, before the cut: all subdomains see the same image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ddcnn.seeds import derive_seed

_TURN = 1000  # moves are integers: angles count thousandths of a degree


@dataclass(frozen=True)
class Augmentation:
    """Random mirror images, shifts by whole pixels and rotations; what they uncover is filled by reflection.

    Attributes
    ----------
    flip_axes
        Spatial axes (0 = first) mirrored with probability 1/2 each.
    shift
        Largest shift along each axis, in pixels.
    rotation
        Largest angle, in degrees; uniform between its negative and itself.
    plane
        The two axes that a rotation turns into each other: of a volume, those of its slices.
    """

    flip_axes: tuple[int, ...] = ()
    shift: int = 0
    rotation: float = 0.0
    plane: tuple[int, int] = (-2, -1)

    def draw(self, *, samples: int, axes: int, seed: int, epoch: int) -> Int64[Tensor, "n rows 2"]:
        """Return for each sample what `apply` does to it: a function of (seed, epoch, sample) alone.

        One row per axis, (flipped 0 or 1, shift), and where images are rotated one more, (thousandths of a degree, 0).
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
        drawn = torch.rand((samples, axes, 2), generator=generator)
        allowed = torch.tensor([axis in self.flip_axes for axis in range(axes)])
        flips = (drawn[..., 0] < 0.5) & allowed
        shifts = (drawn[..., 1] * (2 * self.shift + 1)).long() - self.shift
        moves = torch.stack([flips.long(), shifts], -1)
        if not self.rotation:
            return moves
        generator.manual_seed(derive_seed(seed, "rotation", epoch))
        turns = ((2 * torch.rand(samples, 1, 1, generator=generator) - 1) * self.rotation * _TURN).round().long()
        return torch.cat([moves, F.pad(turns, (0, 1))], 1)

    def apply(self, images: Shaped[Tensor, "B C *S"], moves: Int64[Tensor, "B rows 2"]) -> Shaped[Tensor, "B C *S"]:
        """Return the images, flipped, shifted and rotated by ``moves``, in their own type."""
        if self.flip_axes or self.shift:
            images = moved(images, moves)
        if self.rotation:
            images = rotated(images, moves[:, -1, 0].double() / _TURN, self.plane)
        return images


def rotated(
    images: Shaped[Tensor, "B C *S"], degrees: Float[Tensor, "B"], plane: tuple[int, int] = (-2, -1)
) -> Shaped[Tensor, "B C *S"]:
    """Turn each image about its centre, bilinear, with its surroundings as its mirror image.

    A positive angle turns anticlockwise where the first axis of the plane runs down and the second to the right.
    """
    first, second = (axis if axis < 0 else axis - (images.ndim - 2) for axis in plane)
    last = images.movedim((first, second), (-2, -1))  # what is not in the plane is moved alike, as channels are
    pixels = last.flatten(1, -3).float()
    turned = F.grid_sample(
        pixels, _sources(degrees, pixels), mode="bilinear", padding_mode="reflection", align_corners=True
    )
    turned = turned.view(last.shape).movedim((-2, -1), (first, second))
    if not images.is_floating_point():
        turned = turned.round()
    return turned.to(images.dtype).contiguous()


def _sources(degrees: Tensor, pixels: Tensor) -> Tensor:
    """Return for each pixel of the result where it comes from, (B, H, W, 2) as (x, y) in -1..1."""
    height, width = pixels.shape[-2:]
    angle = (degrees * math.pi / 180).to(pixels).view(-1, 1, 1)
    y = (torch.arange(height, device=pixels.device) - (height - 1) / 2).view(1, -1, 1)
    x = (torch.arange(width, device=pixels.device) - (width - 1) / 2).view(1, 1, -1)
    cos, sin = angle.cos(), angle.sin()
    from_y, from_x = cos * y + sin * x, cos * x - sin * y
    return torch.stack([from_x * 2 / max(width - 1, 1), from_y * 2 / max(height - 1, 1)], -1)


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

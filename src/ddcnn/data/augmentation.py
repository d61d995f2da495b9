"""What happens to whole images in training, on the device, before the cut: all subdomains see the same image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ddcnn.data.colours import draw_colours, recoloured
from ddcnn.data.crops import cropped, draw_crops
from ddcnn.data.mixing import draw_mixing, mixed
from ddcnn.seeds import derive_seed

_TURN = 1000  # moves are integers: angles count thousandths of a degree


@dataclass(frozen=True)
class Augmentation:
    """Random crops, mirror images, shifts by whole pixels, rotations, light jitter and mixing, in this order.

    What shifts and rotations uncover is filled by reflection.

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
    crop
        The smallest share of an image that is enlarged to the size of the whole; 1: none.
    jitter
        How much contrast and brightness change: `ddcnn.data.colours`.
    grey, spread
        Mean and standard deviation of the pixels, between which `jitter` acts.
    mixup, cutmix
        Parameters of the mixing of images, `ddcnn.data.mixing`; 0: none.
    """

    flip_axes: tuple[int, ...] = ()
    shift: int = 0
    rotation: float = 0.0
    plane: tuple[int, int] = (-2, -1)
    crop: float = 1.0
    jitter: float = 0.0
    grey: float = 0.0
    spread: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def from_anywhere(self) -> bool:
        """Whether a subdomain may come to see pixels from all over the image."""
        return bool(self.rotation) or self.crop < 1

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other."""
        return bool(self.mixup or self.cutmix)

    def draw(self, *, samples: int, axes: int, seed: int, epoch: int) -> Int64[Tensor, "n rows 2"]:
        """Return for each sample what `apply` does to it: a function of (seed, epoch, sample) alone.

        One row per axis, (flipped 0 or 1, shift), and then those of what else there is: `rows` tells them apart.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
        drawn = torch.rand((samples, axes, 2), generator=generator)
        allowed = torch.tensor([axis in self.flip_axes for axis in range(axes)])
        flips = (drawn[..., 0] < 0.5) & allowed
        shifts = (drawn[..., 1] * (2 * self.shift + 1)).long() - self.shift
        found = [torch.stack([flips.long(), shifts], -1)]
        if self.rotation:
            generator.manual_seed(derive_seed(seed, "rotation", epoch))
            turns = ((2 * torch.rand(samples, 1, 1, generator=generator) - 1) * self.rotation * _TURN).round().long()
            found.append(F.pad(turns, (0, 1)))
        if self.crop < 1:
            generator.manual_seed(derive_seed(seed, "crop", epoch))
            found.append(draw_crops(samples, axes, self.crop, generator))
        if self.jitter:
            generator.manual_seed(derive_seed(seed, "jitter", epoch))
            found.append(draw_colours(samples, self.jitter, generator))
        if self.mixes:
            generator.manual_seed(derive_seed(seed, "mixing", epoch))
            found.append(draw_mixing(samples, axes, self.mixup, self.cutmix, generator))
        return torch.cat(found, 1)

    def rows(self, what: str, moves: Int64[Tensor, "B rows 2"], axes: int) -> Int64[Tensor, "B some 2"]:
        """Return the rows of ``"turn"``, ``"crop"``, ``"colour"`` or ``"mix"``, along so many axes; perhaps none."""
        counts = {
            "move": axes,
            "turn": int(bool(self.rotation)),
            "crop": axes * int(self.crop < 1),
            "colour": int(bool(self.jitter)),
            "mix": (1 + axes) * int(self.mixes),
        }
        parts: tuple[Tensor, ...] = moves.split(list(counts.values()), 1)
        return dict(zip(counts, parts, strict=True))[what]

    def apply(self, images: Shaped[Tensor, "B C *S"], moves: Int64[Tensor, "B rows 2"]) -> Shaped[Tensor, "B C *S"]:
        """Return the images as ``moves`` have it, in their own type."""
        axes, size = images.ndim - 2, images.shape[2:]
        if self.crop < 1:
            images = cropped(images, self.rows("crop", moves, axes))
        if self.flip_axes or self.shift:
            images = moved(images, moves)
        if self.rotation:
            images = rotated(images, self.rows("turn", moves, axes)[:, 0, 0].double() / _TURN, self.plane)
        return self.finish(images, moves, [(0, pixels) for pixels in size], size)

    def finish(
        self,
        pixels: Shaped[Tensor, "B C *b"],
        moves: Int64[Tensor, "B rows 2"],
        box: Sequence[tuple[int, int]],
        size: Sequence[int],
    ) -> Shaped[Tensor, "B C *b"]:
        """Do to the pixels in a box of images of some size what `apply` does last: what acts on each pixel alone."""
        if self.jitter:
            pixels = recoloured(pixels, self.rows("colour", moves, len(size))[:, 0], self.grey, self.spread)
        if self.mixes:
            pixels = mixed(pixels, self.rows("mix", moves, len(size)), box, size)
        return pixels


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

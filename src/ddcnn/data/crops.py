"""Random resized crops: a part of each image is enlarged to the size of the whole, bilinear, in integers.

Pixels come from two neighbours along each axis, with shares in 1/256. So bytes are the same wherever they are computed:
from a whole image, or from the window of it that one subdomain needs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

_WHOLE = 2**16  # sides and places of crops count 1/65536 of the image
_RATIO = math.log(4 / 3)  # of height and width, at most


def draw_crops(samples: int, axes: int, smallest: float, generator: torch.Generator) -> Int64[Tensor, "n axes 2"]:
    """Return for each sample and axis (place, side): place 0 is the first that is possible, 65536 the last.

    The share of the image is uniform between ``smallest`` and 1; of two axes, the ratio of the sides lies between 3/4
    and 4/3, uniform in its logarithm, and three are shortened alike, as Szegedy et al. (2015) do.
    """
    area, ratio, *places = torch.rand((2 + axes, samples), generator=generator, dtype=torch.float64)
    share = smallest + (1 - smallest) * area
    side = share.pow(1 / axes).unsqueeze(1).repeat(1, axes)
    if axes == 2:
        stretch = ((2 * ratio - 1) * _RATIO / 2).exp()
        side = torch.stack([side[:, 0] * stretch, side[:, 1] / stretch], 1)
    return (torch.stack([torch.stack(places, 1), side.clamp_max(1)], -1) * _WHOLE).round().long()


def neighbours(
    crops: Int64[Tensor, "B 2"], positions: Int64[Tensor, "B m"], pixels: int
) -> tuple[Int64[Tensor, "B m"], Int64[Tensor, "B m"], Int64[Tensor, "B m"]]:
    """Return from which two pixels of an axis those at some positions of the crop come, and the second's share of 256.

    >>> [t.tolist() for t in neighbours(torch.tensor([[0, 2**15]]), torch.arange(4).view(1, 4), 4)]
    [[[0, 0, 0, 1]], [[1, 1, 1, 2]], [[0, 64, 192, 64]]]
    """
    side = pixels * crops[:, 1:]
    start = (pixels * _WHOLE - side) * crops[:, :1] // _WHOLE
    place = start + (2 * positions + 1) * side // (2 * pixels) - _WHOLE // 2  # of centres
    place = place.clamp(0, (pixels - 1) * _WHOLE)
    first = place // _WHOLE
    return first, (first + 1).clamp_max(pixels - 1), place % _WHOLE // 256


def blended(
    first: Shaped[Tensor, "*shape"], second: Shaped[Tensor, "*shape"], share: Tensor
) -> Shaped[Tensor, "*shape"]:
    """Return a mean of two images in their own type; ``share`` is that of the second, in 1/256.

    Each operation stands alone: one that multiplies and adds at once would round differently from place to place.
    """
    if first.is_floating_point():
        part = share.to(first.dtype) / 256
        return first * (1 - part) + second * part
    share = share.int()
    return ((first.int() * (256 - share) + second.int() * share + 128) >> 8).to(first.dtype)


def cropped(images: Shaped[Tensor, "B C *S"], crops: Int64[Tensor, "B axes 2"]) -> Shaped[Tensor, "B C *S"]:
    """Return a part of each image, as large as the whole."""
    for axis, pixels in enumerate(images.shape[2:]):
        every = torch.arange(pixels, device=images.device).expand(len(images), -1)
        first, second, share = neighbours(crops[:, axis], every, pixels)
        images = blended(_along(images, axis, first), _along(images, axis, second), _shaped(share, images, axis))
    return images


def cropped_window(
    window: Shaped[Tensor, "C *s"], found: list[tuple[Tensor, Tensor, Tensor]]
) -> Shaped[Tensor, "C *m"]:
    """Return pixels from a window of one image; ``found`` are `neighbours` in it, (m,) each, per axis."""
    for axis, (first, second, share) in enumerate(found, 1):
        shape = [1] * window.ndim
        shape[axis] = -1
        window = blended(window.index_select(axis, first), window.index_select(axis, second), share.view(shape))
    return window


def _along(images: Tensor, axis: int, positions: Int64[Tensor, "B m"]) -> Tensor:
    """Return the pixels of each image at its own positions along an axis."""
    index = _shaped(positions, images, axis)
    shape = list(images.shape)
    shape[axis + 2] = positions.shape[1]
    return images.gather(axis + 2, index.expand(shape))


def _shaped(values: Tensor, images: Tensor, axis: int) -> Tensor:
    """Return values (B, m) in the shape that goes with an axis of images."""
    shape = [len(images)] + [1] * (images.ndim - 1)
    shape[axis + 2] = values.shape[1]
    return values.view(shape)

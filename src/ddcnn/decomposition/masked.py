"""`Masked`: subdomains of any shape. Each is the bounding box of its pixels, in which the others do not count."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Box, Decomposition, Subdomain, at, slices
from ddcnn.decomposition.values import by
from ddcnn.errors import DecompositionError

_MOST_PIXELS = 2**27  # of an image whose pixels are looked at one by one, such as 512x512x512
_MOST_WORK = 2**33  # times the number of subdomains: some seconds


@dataclass(frozen=True)
class Region(Subdomain):
    """Some pixels of a box.

    Its subimages are those of the box. The local CNN sees the pixels that do not count (`inside`) as the mean.

    Attributes
    ----------
    mask
        (*b): which pixels of the box are its own.
    with_mask
        Whether the network sees the mask as one more channel: 1 inside, 0 outside.
    """

    mask: Tensor = field(repr=False, compare=False)
    with_mask: bool

    remedy = "fewer subdomains"

    @property
    def sees(self) -> str:
        """Which pixels it sees, in words."""
        return f"{int(self.mask.sum())} pixels in {super().sees}"

    @property
    def inside(self) -> Bool[Tensor, "*s"]:
        """The mask."""
        return self.mask

    @property
    def added_channels(self) -> int:
        """1 if the network sees the mask."""
        return int(self.with_mask)

    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write the pixels that are its own."""
        mask = self.mask.to(images.device)
        images[at(slices(self.box))][..., mask] = subimages[..., mask]

    def seen(self) -> Bool[Tensor, "*S"]:
        """Return which pixels of the image it sees."""
        whole = torch.zeros(self.image_size, dtype=torch.bool)
        whole[slices(self.box)] = self.mask
        return whole


class Masked(Decomposition):
    """Give each pixel to one subdomain: a subclass says to which.

    Parameters
    ----------
    mask_channel
        Whether the local CNNs see which pixels count, as one more channel.

    Raises
    ------
    DecompositionError
        An option is something else.
    """

    def __init__(self, *, mask_channel: bool = False) -> None:
        if not isinstance(mask_channel, bool):
            raise DecompositionError(f"mask_channel should be true or false, got {mask_channel!r:.80}")
        self.mask_channel = mask_channel
        self._known: dict[tuple[int, ...], tuple[Region, ...]] = {}

    @abstractmethod
    def owners(self, image_size: tuple[int, ...]) -> Int64[Tensor, "*S"]:
        """Return for each pixel the index of its subdomain, 0..N-1."""

    def subdomains(self, image_size: Sequence[int]) -> tuple[Region, ...]:
        """Return the N subdomains, in the order of their index.

        Raises
        ------
        DecompositionError
            A subdomain has no pixel, or the images are too large.
        """
        size = tuple(image_size)
        if size not in self._known:
            if math.prod(size) > _MOST_PIXELS or math.prod(size) * len(self) > _MOST_WORK:
                raise DecompositionError(
                    f"{self.describe()} is not possible on images of {by(size)} pixels, which are too many; use a grid"
                )
            owners = self.owners(size)
            self._known[size] = tuple(self._region(n, owners, size) for n in range(len(self)))
        return self._known[size]

    def _region(self, n: int, owners: Tensor, size: tuple[int, ...]) -> Region:
        mask = owners == n
        if not mask.any():
            raise DecompositionError(
                f"{self.describe()} leaves subdomain {n} of images of {by(size)} pixels empty; use fewer subdomains, "
                f"or larger images"
            )
        box = bounding_box(mask)
        return Region(n, size, box, mask[slices(box)].clone(), self.mask_channel)


def bounding_box(mask: Bool[Tensor, "*S"]) -> Box:
    """Return the smallest box that holds all of a mask.

    >>> mask = torch.zeros(4, 6, dtype=torch.bool)
    >>> mask[1, 2] = mask[2, 4] = True
    >>> bounding_box(mask)
    ((1, 3), (2, 5))
    """
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        there = torch.nonzero(mask.any(others) if others else mask).flatten()
        found.append((int(there[0]), int(there[-1]) + 1))
    return tuple(found)


def last_two(image_size: Sequence[int], name: str) -> tuple[int, int]:
    """Return rows and columns of images or volumes."""
    if len(image_size) < 2:
        raise DecompositionError(f"{name} needs images of 2 or 3 axes, got {by(image_size)}")
    return image_size[-2], image_size[-1]


def centred(pixels: int) -> Int64[Tensor, "pixels"]:
    """Return twice the distance of each pixel's centre from the middle of an axis, signed.

    >>> centred(4).tolist(), centred(3).tolist()
    ([-3, -1, 1, 3], [-2, 0, 2])
    """
    return 2 * torch.arange(pixels) + 1 - pixels

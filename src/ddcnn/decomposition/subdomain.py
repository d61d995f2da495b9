"""`Subdomain`: a view of an image; `Decomposition`: a list of views."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

_ALL = (slice(None), slice(None))  # samples and channels
Box = tuple[tuple[int, int], ...]  # one (start, stop) per axis, in pixels


def whole_box(image_size: Sequence[int]) -> Box:
    """Return the box of the whole image."""
    return tuple((0, pixels) for pixels in image_size)


def slices(box: Box) -> tuple[slice, ...]:
    """Return what cuts a box out of an array of pixels."""
    return tuple(slice(start, stop) for start, stop in box)


def at(places: Sequence[slice]) -> tuple[Any, ...]:
    """Return the index of places along the last axes of a tensor."""
    return (..., *places)


@dataclass(frozen=True)
class Subdomain(ABC):
    """What one local CNN sees of an image.

    A subclass says how a subimage is made from the pixels of a bounding box, and which pixels of the image it owns.
    Whoever has images, in memory, in a store or elsewhere, only has to provide that box.

    Attributes
    ----------
    index
        0..N-1.
    image_size
        (H, W) or (D, H, W) of the images that it is a view of.
    box
        (start, stop) per axis: it depends on no pixel outside.
    remedy
        What would give it a larger subimage, as messages put it.
    """

    index: int
    image_size: tuple[int, ...]
    box: Box

    remedy: ClassVar[str] = "a coarser grid"

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of a subimage in pixels, (h, w) or (d, h, w); by default, that of the box."""
        return tuple(stop - start for start, stop in self.box)

    @property
    def sees(self) -> str:
        """Which pixels it sees, in words."""
        return ", ".join(
            f"{axis} {start}..{stop - 1}" for axis, (start, stop) in zip(axis_names(self.box), self.box, strict=True)
        )

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"subdomain {self.index} ({self.sees})"

    @property
    def inside(self) -> Bool[Tensor, "*s"] | None:
        """Which pixels of a subimage count; the network sees the others as 0 once the images are normalised.

        0 is then what the mean of the training images becomes, channel by channel. None: all count.
        """
        return None

    @property
    def added_channels(self) -> int:
        """1 if the network sees `inside` as one more channel, behind those of the image; else 0."""
        return 0

    @property
    def pixels(self) -> int:
        """Number of pixels of a subimage, per channel."""
        return math.prod(self.shape)

    def cut(self, images: Shaped[Tensor, "B C *S"]) -> Shaped[Tensor, "B C *s"]:
        """Return the subimages of whole images."""
        return self.view(images[(*_ALL, *slices(self.box))])

    def view(self, pixels: Shaped[Tensor, "B C *b"]) -> Shaped[Tensor, "B C *s"]:
        """Return the subimages, from the pixels of the box; by default, these."""
        return pixels

    @abstractmethod
    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write, of subimages, the pixels that no other subdomain owns to where they belong in whole images."""

    def seen(self) -> Bool[Tensor, "*S"]:
        """Return which pixels of the image it sees; by default, all of its box."""
        mask = torch.zeros(self.image_size, dtype=torch.bool)
        mask[slices(self.box)] = True
        return mask


def axis_names(axes: Sequence[object]) -> tuple[str, ...]:
    """Return what messages call the axes of images of so many."""
    return ("depth", "rows", "columns")[-len(axes) :]


class Decomposition(ABC):
    """A rule that cuts images of any size into N subdomains. Geometry is integers only."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of subdomains, N."""

    @abstractmethod
    def subdomains(self, image_size: Sequence[int]) -> tuple[Subdomain, ...]:
        """Return the N subdomains of an image of (H, W) or (D, H, W) pixels, in the order of their index.

        Raises
        ------
        DecompositionError
            The image cannot be cut in this way.
        """

    def describe(self) -> str:
        """Return in a few words what it is, as titles and names of files have it."""
        return f"{type(self).__name__.lower()}-{len(self)}"

    @property
    def layout(self) -> tuple[int, ...]:
        """How the subdomains are arranged, rows x columns, row-major, for maps of them; () if they are not.

        What comes behind them, such as a coarse level, has no place in it.
        """
        return ()

    @property
    def fine(self) -> int:
        """Number of subdomains among which the image is divided, for the width rule; a coarse level is none of them."""
        return len(self)

    def chunks(self, image_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return parts and overlap, per axis, of the grid along which a store should cut images."""
        parts = round(len(self) ** (1 / len(image_size)))
        return tuple(min(parts, pixels) for pixels in image_size), (0,) * len(image_size)

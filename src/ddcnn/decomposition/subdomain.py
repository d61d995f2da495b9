"""`Subdomain`: a view of an image; `Decomposition`: a list of views."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    index: int
    image_size: tuple[int, ...]
    box: Box

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Size of a subimage in pixels, (h, w) or (d, h, w)."""

    @property
    def name(self) -> str:
        """What messages call it."""
        axes = ("depth", "rows", "columns")[-len(self.box) :]
        pixels = (f"{axis} {start}..{stop - 1}" for axis, (start, stop) in zip(axes, self.box, strict=True))
        return f"subdomain {self.index} ({', '.join(pixels)})"

    @property
    def pixels(self) -> int:
        """Number of pixels of a subimage, per channel."""
        return math.prod(self.shape)

    def cut(self, images: Shaped[Tensor, "B C *S"]) -> Shaped[Tensor, "B C *s"]:
        """Return the subimages of whole images."""
        return self.view(images[(*_ALL, *slices(self.box))])

    @abstractmethod
    def view(self, pixels: Shaped[Tensor, "B C *b"]) -> Shaped[Tensor, "B C *s"]:
        """Return the subimages, from the pixels of the box."""

    @abstractmethod
    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write, of subimages, the pixels that no other subdomain owns to where they belong in whole images."""

    def seen(self) -> Bool[Tensor, "*S"]:
        """Return which pixels of the image it sees; by default, all of its box."""
        mask = torch.zeros(self.image_size, dtype=torch.bool)
        mask[slices(self.box)] = True
        return mask


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

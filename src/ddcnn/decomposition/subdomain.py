"""A subdomain: a box of pixel indices, and the part of it that no neighbour owns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

_ALL = (slice(None), slice(None))  # samples and channels
Box = tuple[tuple[int, int], ...]  # one (start, stop) per axis, in pixels


@dataclass(frozen=True)
class Subdomain:
    """A box of pixels.

    Attributes
    ----------
    index
        0..N-1, row-major.
    box
        (start, stop) per axis, overlap included.
    core
        The same without overlap: the cores of all subdomains tile the image.
    """

    index: int
    box: Box
    core: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of a subimage in pixels, (h, w) or (d, h, w)."""
        return tuple(stop - start for start, stop in self.box)

    @property
    def pixels(self) -> int:
        """Number of pixels of a subimage, per channel."""
        return math.prod(self.shape)

    def cut(self, images: Shaped[Tensor, "B C *S"]) -> Shaped[Tensor, "B C *s"]:
        """Return the subimages, (B, C, h, w) or (B, C, d, h, w), as a view."""
        return images[(*_ALL, *(slice(start, stop) for start, stop in self.box))]


class Decomposition(ABC):
    """A rule that cuts images of any size into N subdomains. Geometry is integers only."""

    @abstractmethod
    def subdomains(self, image_size: Sequence[int]) -> tuple[Subdomain, ...]:
        """Return the N subdomains of an image of (H, W) or (D, H, W) pixels, row-major.

        Raises
        ------
        DecompositionError
            The image cannot be cut in this way.
        """

"""PixelsOfSubdomains: of all images, the pixels that some subdomains can come to see, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import Augmentation, origins
from ddcnn.data.lazy import Images
from ddcnn.decomposition import Subdomain, Subimages


@dataclass(frozen=True)
class SubdomainPixels:
    """The pixels of all images that one subdomain can come to see.

    Attributes
    ----------
    subdomain
        Its index.
    pixels
        (n, C, *r): those at the positions ``reach``, ascending along each axis.
    """

    subdomain: int
    pixels: Shaped[Tensor, "n C *r"]
    reach: tuple[Int64[Tensor, "_"], ...]

    @classmethod
    def of(
        cls, images: Shaped[Tensor, "n C *S"], subdomain: Subdomain, augmentation: Augmentation | None
    ) -> SubdomainPixels:
        """Cut the slab of a subdomain whose images are flipped and shifted, but not rotated."""
        assert augmentation is None or not augmentation.rotation, "what is turned comes from the whole image"
        reach = []
        pixels = images
        for axis, (interval, size) in enumerate(zip(subdomain.box, images.shape[2:], strict=True)):
            moves = _moves(axis, augmentation)
            reach.append(origins(moves, interval, size).unique())
            pixels = pixels.index_select(axis + 2, reach[-1])
        return cls(subdomain.index, pixels.contiguous(), tuple(reach))


class PixelsOfSubdomains(Images):
    """Images of which only slabs are here: `take` gives the subimages of their subdomains.

    Parameters
    ----------
    slabs
        One per subdomain.
    shape
        Of the whole images, (n, C, *S).
    """

    def __init__(self, slabs: Sequence[SubdomainPixels], shape: Sequence[int]) -> None:
        self.slabs = {slab.subdomain: slab for slab in slabs}
        self.shape, self.dtype = tuple(shape), slabs[0].pixels.dtype

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Refuse: there is no whole image here."""
        raise AssertionError(f"image {i} is not here, only slabs of it")

    def take(
        self,
        samples: Int64[Tensor, " m"],
        moves: Int64[Tensor, "m axes 2"] | None = None,
        subdomains: Sequence[Subdomain] | None = None,
    ) -> Subimages:
        """Return subimages as `Images.take` does."""
        assert subdomains is not None
        return Subimages(tuple(self._cut(samples, moves, subdomain) for subdomain in subdomains))

    def _cut(self, samples: Tensor, moves: Tensor | None, subdomain: Subdomain) -> Tensor:
        slab = self.slabs[subdomain.index]
        moves = torch.zeros(len(samples), len(slab.reach), 2, dtype=torch.long) if moves is None else moves
        source = torch.zeros(len(samples), 1, dtype=torch.long)  # (m, pixels so far), as in `moved`
        for axis, (interval, reach) in enumerate(zip(subdomain.box, slab.reach, strict=True)):
            position = torch.searchsorted(reach, origins(moves[:, axis], interval, self.shape[axis + 2]).contiguous())
            source = (source.unsqueeze(2) * len(reach) + position.unsqueeze(1)).flatten(1)
        every_channel = source.unsqueeze(1).expand(-1, self.shape[1], -1)
        pixels = slab.pixels[samples].flatten(2).gather(2, every_channel)
        return pixels.view(len(samples), self.shape[1], *subdomain.shape)


def _moves(axis: int, augmentation: Augmentation | None) -> Int64[Tensor, "k 2"]:
    """Return every flip and shift that may happen along an axis."""
    if augmentation is None:
        return torch.zeros(1, 2, dtype=torch.long)
    flips = torch.tensor([0, 1] if axis in augmentation.flip_axes else [0])
    return torch.cartesian_prod(flips, torch.arange(-augmentation.shift, augmentation.shift + 1))

"""`SubdomainPixels`: of all images, the pixels that some subdomains can come to see, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import Augmentation, origins
from ddcnn.data.lazy import Images
from ddcnn.decomposition import Subdomain, Subimages


@dataclass(frozen=True)
class Reach:
    """The pixels of all images that one subdomain can come to see.

    Attributes
    ----------
    pixels
        (n, C, *r): those at the ``positions``, which ascend along each axis.
    """

    pixels: Shaped[Tensor, "n C *r"]
    positions: tuple[Int64[Tensor, "_"], ...]

    @classmethod
    def of(cls, images: Shaped[Tensor, "n C *S"], subdomain: Subdomain, augmentation: Augmentation | None) -> Reach:
        """Cut what a subdomain can see of images that are flipped and shifted, but not rotated or cropped."""
        assert augmentation is None or not augmentation.from_anywhere, "what is turned comes from the whole image"
        positions = []
        pixels = images
        for axis, (interval, size) in enumerate(zip(subdomain.box, images.shape[2:], strict=True)):
            positions.append(origins(_moves(axis, augmentation), interval, size).unique())
            pixels = pixels.index_select(axis + 2, positions[-1])
        return cls(pixels.contiguous(), tuple(positions))

    def box(self, subdomain: Subdomain, samples: Tensor, moves: Tensor, size: Sequence[int]) -> Tensor:
        """Return the pixels of a subdomain's box, of some samples that are moved."""
        source = torch.zeros(len(samples), 1, dtype=torch.long)  # (m, pixels so far), as in `moved`
        for axis, (interval, reach) in enumerate(zip(subdomain.box, self.positions, strict=True)):
            position = torch.searchsorted(reach, origins(moves[:, axis], interval, size[axis]).contiguous())
            source = (source.unsqueeze(2) * len(reach) + position.unsqueeze(1)).flatten(1)
        channels = self.pixels.shape[1]
        pixels = self.pixels[samples].flatten(2).gather(2, source.unsqueeze(1).expand(-1, channels, -1))
        return pixels.view(len(samples), channels, *(stop - start for start, stop in subdomain.box))


class SubdomainPixels(Images):
    """Images of which only what some subdomains can see is here.

    Parameters
    ----------
    reaches
        By index of the subdomain.
    shape
        Of the whole images, (n, C, *S).
    """

    def __init__(self, reaches: Mapping[int, Reach], shape: Sequence[int]) -> None:
        self.reaches = dict(reaches)
        self.shape, self.dtype = tuple(shape), next(iter(reaches.values())).pixels.dtype

    @classmethod
    def of(
        cls, images: Shaped[Tensor, "n C *S"], subdomains: Sequence[Subdomain], augmentation: Augmentation | None
    ) -> SubdomainPixels:
        """Cut what subdomains can see of images that are flipped and shifted, but not rotated or cropped."""
        return cls({s.index: Reach.of(images, s, augmentation) for s in subdomains}, images.shape)

    def pack(self) -> tuple[list[int], dict[str, np.ndarray]]:
        """Return the indices of the subdomains, and arrays from which `unpack` makes the same."""
        arrays = {f"pixels{n}": reach.pixels.numpy() for n, reach in self.reaches.items()}
        for n, reach in self.reaches.items():
            arrays |= {f"reach{n}-{axis}": positions.numpy() for axis, positions in enumerate(reach.positions)}
        return list(self.reaches), arrays

    @classmethod
    def unpack(cls, indices: Sequence[int], arrays: Mapping[str, Any], shape: Sequence[int]) -> SubdomainPixels:
        """Return what was packed."""

        def tensor(name: str) -> Tensor:
            return torch.from_numpy(arrays[name])

        axes = range(len(shape) - 2)
        reaches = {n: Reach(tensor(f"pixels{n}"), tuple(tensor(f"reach{n}-{a}") for a in axes)) for n in indices}
        return cls(reaches, shape)

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Refuse: there is no whole image here."""
        raise AssertionError(f"image {i} is not here, only some of its pixels")

    def take(
        self,
        samples: Int64[Tensor, " m"],
        subdomains: Sequence[Subdomain],
        augmentation: Augmentation | None = None,
        moves: Int64[Tensor, "m rows 2"] | None = None,
    ) -> Subimages:
        """Return subimages as `Images.take` does."""
        size = self.shape[2:]
        still = torch.zeros(len(samples), len(size), 2, dtype=torch.long)
        boxes = [self.reaches[s.index].box(s, samples, still if moves is None else moves, size) for s in subdomains]
        if augmentation is not None and moves is not None:
            boxes = [augmentation.finish(one, moves, s.box, size) for one, s in zip(boxes, subdomains, strict=True)]
        return Subimages(tuple(s.view(one) for s, one in zip(subdomains, boxes, strict=True)))


def _moves(axis: int, augmentation: Augmentation | None) -> Int64[Tensor, "k 2"]:
    """Return every flip and shift that may happen along an axis."""
    if augmentation is None:
        return torch.zeros(1, 2, dtype=torch.long)
    flips = torch.tensor([0, 1] if axis in augmentation.flip_axes else [0])
    return torch.cartesian_prod(flips, torch.arange(-augmentation.shift, augmentation.shift + 1))

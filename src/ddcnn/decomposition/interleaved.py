"""`Interleaved`: every p-th pixel: each subdomain sees the whole scene, at a lower resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Decomposition, Subdomain, at, axis_names
from ddcnn.decomposition.values import MOST_SUBDOMAINS, by, counts
from ddcnn.errors import DecompositionError


@dataclass(frozen=True)
class Strided(Subdomain):
    """Every p-th pixel of its box along each axis.

    Attributes
    ----------
    strides
        p, per axis.
    """

    strides: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of a subimage in pixels."""
        return tuple(-(-(stop - start) // p) for (start, stop), p in zip(self.box, self.strides, strict=True))

    @property
    def sees(self) -> str:
        """Which pixels it sees, in words."""
        return ", ".join(
            f"{axis} {start}..{stop - 1}" + (f" in steps of {p}" if p > 1 else "")
            for axis, (start, stop), p in zip(axis_names(self.box), self.box, self.strides, strict=True)
        )

    def view(self, pixels: Shaped[Tensor, "B C *b"]) -> Shaped[Tensor, "B C *s"]:
        """Return every p-th pixel."""
        return pixels[at([slice(None, None, p) for p in self.strides])]

    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write the pixels to where they come from."""
        images[at(self._places())] = subimages

    def seen(self) -> Bool[Tensor, "*S"]:
        """Return which pixels of the image it sees."""
        mask = torch.zeros(self.image_size, dtype=torch.bool)
        mask[self._places()] = True
        return mask

    def _places(self) -> tuple[slice, ...]:
        return tuple(slice(start, stop, p) for (start, stop), p in zip(self.box, self.strides, strict=True))


class Interleaved(Decomposition):
    """Deal the pixels out: along each axis, subdomain k of p gets the pixels k, k + p, k + 2p, ...

    Parameters
    ----------
    parts
        p along each axis: (rows, columns), or (depth, rows, columns) for volumes.

    Raises
    ------
    DecompositionError
        A number below 1, or a single one: it is not known for how many axes.

    Examples
    --------
    >>> import torch
    >>> image = torch.arange(8).view(1, 1, 2, 4)
    >>> [s.cut(image).flatten().tolist() for s in Interleaved((1, 2)).subdomains((2, 4))]
    [[0, 2, 4, 6], [1, 3, 5, 7]]
    """

    def __init__(self, parts: Sequence[int] | int = (2, 2)) -> None:
        self.parts = counts("interleaved", parts, "interleaved:2x2", axes=(2, 3))
        if math.prod(self.parts) > MOST_SUBDOMAINS:
            raise DecompositionError(
                f"interleaved {by(self.parts)} has too many subdomains, at most {MOST_SUBDOMAINS} are possible"
            )

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return math.prod(self.parts)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"Interleaved({self.parts})"

    def describe(self) -> str:
        """Return the strides."""
        return f"interleaved{by(self.parts)}"

    @property
    def layout(self) -> tuple[int, ...]:
        """The strides: where a subdomain begins."""
        return self.parts

    def chunks(self, image_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return a single part: every subdomain sees all of the image."""
        return (1,) * len(image_size), (0,) * len(image_size)

    def subdomains(self, image_size: Sequence[int]) -> tuple[Strided, ...]:
        """Return the N subdomains, row-major by their first pixel."""
        size = tuple(image_size)
        if len(size) != len(self.parts):
            raise DecompositionError(
                f"interleaved {by(self.parts)} has {len(self.parts)} axes, but the images are {by(size)}; give one "
                f"number per axis"
            )
        if any(p > pixels for p, pixels in zip(self.parts, size, strict=True)):
            raise DecompositionError(
                f"interleaved {by(self.parts)} leaves subdomains of images of {by(size)} pixels empty; use smaller "
                f"numbers"
            )
        offsets = itertools.product(*map(range, self.parts))
        return tuple(Strided(n, size, self._box(offset, size), self.parts) for n, offset in enumerate(offsets))

    def _box(self, offset: Sequence[int], size: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return the box from the first to the last pixel that is seen."""
        return tuple(
            (first, pixels - (pixels - 1 - first) % p)
            for first, pixels, p in zip(offset, size, self.parts, strict=True)
        )

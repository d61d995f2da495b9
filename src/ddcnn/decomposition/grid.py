"""`Grid`: rectangular subdomains, non-overlapping (type A of the paper) or overlapping (type B)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Box, Decomposition, Subdomain, slices
from ddcnn.errors import DecompositionError

_MOST = 2**40  # subdomains; far above what anybody can train, far below what an index can hold


@dataclass(frozen=True)
class Rectangle(Subdomain):
    """A box of pixels, as it is.

    Attributes
    ----------
    core
        The part of the box that no neighbour owns: the cores of all subdomains tile the image.
    """

    core: Box

    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write the core."""
        inside: Box = tuple((a - start, b - start) for (a, b), (start, _) in zip(self.core, self.box, strict=True))
        place, taken = tuple[Any, ...]((..., *slices(self.core))), tuple[Any, ...]((..., *slices(inside)))
        images[place] = subimages[taken]


class Grid(Decomposition):
    """Cut each axis into parts of equal size, up to one pixel; larger parts come first.

    Parameters
    ----------
    parts
        Number of subdomains along each axis: (rows, columns), or (depth, rows, columns) for volumes.
    overlap
        Pixels by which a subdomain grows into its neighbours, on each side that has a neighbour; one number, or one
        per axis.

    Raises
    ------
    DecompositionError
        A number of parts below 1, a negative overlap, or another number of overlaps than of axes.

    References
    ----------
    Klawonn, Lanser, Weber, arXiv 2408.14442 (type A); arXiv 2302.06564 (overlap).

    Examples
    --------
    >>> [s.shape for s in Grid((3, 1)).subdomains((32, 7))]
    [(11, 7), (11, 7), (10, 7)]
    >>> [s.box for s in Grid((1, 2), overlap=2).subdomains((4, 8))]
    [((0, 4), (0, 6)), ((0, 4), (2, 8))]
    """

    def __init__(self, parts: Sequence[int], *, overlap: int | Sequence[int] = 0) -> None:
        self.parts = tuple(parts)
        widths = (overlap,) if isinstance(overlap, int) else tuple(overlap)
        self.overlap = widths * len(self.parts) if len(widths) == 1 else widths
        if not self.parts or min(self.parts) < 1:
            raise DecompositionError(f"a grid needs at least 1 part along each axis, got {_x(self.parts)}")
        if math.prod(self.parts) > _MOST:
            raise DecompositionError(
                f"a grid of {_x(self.parts)} subdomains is too large, at most {_MOST} are possible"
            )
        if len(self.overlap) != len(self.parts):
            raise DecompositionError(
                f"overlap {_x(self.overlap)} has {len(self.overlap)} axes, but grid {_x(self.parts)} has "
                f"{len(self.parts)}; give one number, or one per axis"
            )
        if min(self.overlap) < 0:
            raise DecompositionError(f"overlap should be 0 pixels or more, got {_x(self.overlap)}")

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return math.prod(self.parts)

    def __repr__(self) -> str:
        """Return the call that makes this grid."""
        return f"Grid({self.parts}, overlap={self.overlap})"

    def describe(self) -> str:
        """Return the number of parts along each axis, and the overlap.

        >>> Grid((2, 2)).describe(), Grid((4, 1), overlap=(2, 0)).describe()
        ('2x2', '4x1-overlap2x0')
        """
        return _x(self.parts) + (f"-overlap{_x(self.overlap)}" if any(self.overlap) else "")

    @property
    def layout(self) -> tuple[int, ...]:
        """The parts."""
        return self.parts

    def chunks(self, image_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:  # noqa: ARG002 - of any size
        """Return the grid itself."""
        return self.parts, self.overlap

    def subdomains(self, image_size: Sequence[int]) -> tuple[Rectangle, ...]:
        """Return the N subdomains, row-major."""
        size = tuple(image_size)
        if len(size) != len(self.parts):
            raise DecompositionError(
                f"grid {_x(self.parts)} has {len(self.parts)} axes, but the images are {_x(size)}; give one number of "
                f"parts per axis"
            )
        if any(part > pixels for part, pixels in zip(self.parts, size, strict=True)):
            raise DecompositionError(
                f"grid {_x(self.parts)} is finer than the images, {_x(size)} pixels; use a coarser grid"
            )
        axes = [_intervals(n, parts) for n, parts in zip(size, self.parts, strict=True)]
        cores = itertools.product(*axes)
        return tuple(Rectangle(i, size, self._grow(core, size), core) for i, core in enumerate(cores))

    def _grow(self, core: tuple[tuple[int, int], ...], size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        return tuple(
            (max(0, start - width), min(pixels, stop + width))
            for (start, stop), pixels, width in zip(core, size, self.overlap, strict=True)
        )


def _intervals(pixels: int, parts: int) -> list[tuple[int, int]]:
    small, larger = divmod(pixels, parts)
    stops = list(itertools.accumulate(small + (i < larger) for i in range(parts)))
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _x(numbers: Sequence[int]) -> str:
    return "x".join(str(n) for n in numbers)

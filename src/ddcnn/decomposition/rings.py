"""`Rings`: rings about the middle of the image, or sectors, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.decomposition.masked import Masked, centred, last_two
from ddcnn.decomposition.values import by, counts
from ddcnn.errors import DecompositionError

_FINE = 2**20  # directions are rounded to integers, which are the same on every machine


class Rings(Masked):
    """Ellipses of the image's proportions about its middle, with as many pixels in each ring, and sectors of them.

    The first subdomain is the innermost, the sectors of a ring follow one another clockwise from the right, and what is
    outside all ellipses, the corners, belongs to the outermost. Of volumes, rings and sectors lie in the plane of rows
    and columns: they are tubes along the depth.

    Parameters
    ----------
    parts
        Number of rings, or rings x sectors: ``(1, 6)`` is sectors alone.
    mask_channel
        As in `Masked`.

    Examples
    --------
    >>> Rings(2).owners((4, 4)).tolist()
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    >>> Rings((1, 4)).owners((4, 4)).tolist()
    [[2, 2, 3, 3], [2, 2, 3, 3], [1, 1, 0, 0], [1, 1, 0, 0]]
    """

    def __init__(self, parts: Sequence[int] | int = 3, *, mask_channel: bool = False) -> None:
        super().__init__(mask_channel=mask_channel)
        self.rings, self.sectors = (*counts("rings", parts, "rings:3 or rings:3x4", axes=(1, 2)), 1)[:2]

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return self.rings * self.sectors

    def describe(self) -> str:
        """Return the number of rings, and of sectors."""
        return f"rings{by((self.rings, self.sectors) if self.sectors > 1 else (self.rings,))}"

    def owners(self, image_size: tuple[int, ...]) -> Int64[Tensor, "*S"]:
        """Return for each pixel the index of its ring and sector."""
        height, width = last_two(image_size, "rings")
        y, x = centred(height)[:, None] * width, centred(width)[None, :] * height
        plane = self.sectors * _rings(y.square() + x.square(), self.rings) + _sectors(y, x, self.sectors)
        return plane.expand(image_size).contiguous()


def sectors(parts: Sequence[int] | int = 4, *, mask_channel: bool = False) -> Rings:
    """Return sectors alone.

    Raises
    ------
    DecompositionError
        Their number is no number of 2 or more.
    """
    (count,) = counts("sectors", parts, "sectors:6", axes=(1,))
    if count < 2:
        raise DecompositionError(f"sectors needs 2 or more, got {count}; write for example sectors:6")
    return Rings((1, count), mask_channel=mask_channel)


def _rings(distances: Int64[Tensor, "H W"], rings: int) -> Int64[Tensor, "H W"]:
    """Divide pixels by their distance from the middle into parts of like size; equal distances stay together."""
    ordered = distances.flatten().sort().values
    bounds = ordered[[k * len(ordered) // rings for k in range(1, rings)]]
    return torch.bucketize(distances, bounds, right=True)


def _sectors(y: Tensor, x: Tensor, sectors: int) -> Int64[Tensor, "H W"]:
    """Divide pixels by their direction; the middle belongs to the first."""
    found = torch.zeros(torch.broadcast_shapes(y.shape, x.shape), dtype=torch.int64)
    if sectors == 1:
        return found
    ahead = []  # of the k-th border
    for k in range(sectors):
        angle = 2 * math.pi * k / sectors
        down, right = round(_FINE * math.sin(angle)), round(_FINE * math.cos(angle))
        ahead.append(right * y - down * x >= 0)
    for k in range(sectors):
        between = ahead[k] & ~ahead[(k + 1) % sectors] if sectors > 2 else (ahead[0] if k == 0 else ~ahead[0])
        found[between] = k
    return found

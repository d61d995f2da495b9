"""`Triangles`: the cells of a grid, each cut along both diagonals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.decomposition.grid import Grid
from ddcnn.decomposition.masked import Masked, centred, last_two
from ddcnn.decomposition.subdomain import slices
from ddcnn.decomposition.values import by, counts
from ddcnn.errors import DecompositionError


class Triangles(Masked):
    """Cut each cell of a grid along both diagonals: 4 triangles, the upper, the left, the right and the lower one.

    Of volumes, the cells are cut in the plane of their rows and columns, into prisms.

    Parameters
    ----------
    parts
        Cells of the grid, rows x columns, or depth x rows x columns.
    mask_channel
        As in `Masked`.

    Examples
    --------
    >>> Triangles().owners((4, 4)).tolist()
    [[0, 0, 0, 2], [1, 0, 2, 2], [1, 1, 3, 2], [1, 3, 3, 3]]
    """

    def __init__(self, parts: Sequence[int] | int = (1, 1), *, mask_channel: bool = False) -> None:
        super().__init__(mask_channel=mask_channel)
        self.parts = counts("triangles", parts, "triangles:2x2", axes=(2, 3))

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return 4 * math.prod(self.parts)

    def describe(self) -> str:
        """Return the number of triangles."""
        return f"triangles{by(self.parts)}"

    def owners(self, image_size: tuple[int, ...]) -> Int64[Tensor, "*S"]:
        """Return for each pixel the index of its triangle; those of a cell follow one another."""
        last_two(image_size, "triangles")
        if len(self.parts) > len(image_size):
            raise DecompositionError(
                f"triangles {by(self.parts)} has {len(self.parts)} axes, but the images are {by(image_size)}; give one "
                f"number of cells per axis"
            )
        parts = (1,) * (len(image_size) - len(self.parts)) + self.parts
        owners = torch.empty(image_size, dtype=torch.int64)
        for cell in Grid(parts).subdomains(image_size):
            owners[slices(cell.box)] = 4 * cell.index + _quarters(*cell.shape[-2:])
        return owners


def _quarters(height: int, width: int) -> Int64[Tensor, "H W"]:
    """Return the triangle of each pixel of a rectangle; those on a diagonal are shared out fairly."""
    y, x = centred(height)[:, None], centred(width)[None, :]
    up, across = y.abs() * width, x.abs() * height
    vertical = (up > across) | ((up == across) & ((y * x > 0) | (x == 0)))
    return torch.where(vertical, torch.where(y > 0, 3, 0), torch.where(x > 0, 2, 1))

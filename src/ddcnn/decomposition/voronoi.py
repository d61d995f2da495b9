"""`Voronoi`: each pixel belongs to the nearest of some sites."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.decomposition.masked import Masked
from ddcnn.decomposition.values import counts, whole_number

_UNIT = 64  # sites lie on a lattice of 1/128 of a pixel: integers, which are the same on every machine
_ROUNDS = 10
_LATTICE = {1: 256, 2: 64, 3: 32}  # points per axis on which sites are moved


class Voronoi(Masked):
    """Cells of random sites, which are moved to the centre of their cell ten times, so that cells are of like size.

    Parameters
    ----------
    parts
        Number of cells.
    seed
        Determines the sites; equal seeds give equal cells, everywhere.
    mask_channel
        As in `Masked`.

    References
    ----------
    S. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982): moving sites to the centre.

    Examples
    --------
    >>> [int(s.inside.sum()) for s in Voronoi(6).subdomains((28, 28))]
    [154, 154, 114, 130, 131, 101]
    """

    def __init__(self, parts: Sequence[int] | int = 6, *, seed: int | str = 0, mask_channel: bool = False) -> None:
        super().__init__(mask_channel=mask_channel)
        (self.cells,) = counts("voronoi", parts, "voronoi:6", axes=(1,))
        self.seed = whole_number("voronoi", "seed", seed)

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return self.cells

    def describe(self) -> str:
        """Return the number of cells."""
        return f"voronoi{self.cells}" + (f"-seed{self.seed}" if self.seed else "")

    def owners(self, image_size: tuple[int, ...]) -> Int64[Tensor, "*S"]:
        """Return for each pixel the index of the nearest site; of two at the same distance, the lower one."""
        axes = [_UNIT * (2 * torch.arange(pixels) + 1) for pixels in image_size]
        return _nearest(self._sites(image_size), axes)

    def _sites(self, image_size: Sequence[int]) -> Int64[Tensor, "N axes"]:
        """Return the sites, from top to bottom."""
        draw = random.Random(self.seed).random  # the same in every version of Python
        ends = [2 * _UNIT * pixels for pixels in image_size]
        sites = torch.tensor([[int(draw() * end) for end in ends] for _ in range(self.cells)])
        points = [min(pixels, _LATTICE[len(ends)]) for pixels in image_size]
        axes = [(2 * torch.arange(n) + 1) * end // (2 * n) for n, end in zip(points, ends, strict=True)]
        where = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
        for _ in range(_ROUNDS):
            owners = _nearest(sites, axes).flatten()
            total = torch.zeros_like(sites).index_add_(0, owners, where)
            count = torch.bincount(owners, minlength=self.cells).unsqueeze(1)
            sites = torch.where(count > 0, total // count.clamp_min(1), sites)
        return torch.tensor(sorted(sites.tolist()))


def _nearest(sites: Tensor, axes: Sequence[Tensor]) -> Int64[Tensor, "*S"]:
    """Return for each point of a lattice the index of the nearest site."""
    owners = torch.zeros(tuple(map(len, axes)), dtype=torch.int64)
    nearest = torch.full_like(owners, 2**62)
    for n, site in enumerate(sites.tolist()):
        distance = torch.zeros_like(owners)
        for axis, (positions, place) in enumerate(zip(axes, site, strict=True)):
            shape = [1] * len(axes)
            shape[axis] = -1
            distance += (positions - place).square().view(shape)
        owners[distance < nearest] = n
        nearest = torch.minimum(nearest, distance)
    return owners

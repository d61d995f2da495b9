"""Mixup and cutmix of whole images: each is mixed with another of its batch, in the same way for all subdomains.

Mixup (Zhang et al., arXiv 1710.09412) takes a mean of two images, cutmix (Yun et al., arXiv 1905.04899) puts a box of
one into the other; the target is mixed in the same shares. The other is that in the same place of the reversed batch,
which was shuffled, as in timm. Both act on each pixel alone, so a subimage is mixed as its image is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ddcnn.data.crops import blended

_WHOLE = 2**16
_ALONE, _MIXED, _CUT = 0, 1, 2


def draw_mixing(
    samples: int, axes: int, mixup: float, cutmix: float, generator: torch.Generator
) -> Int64[Tensor, "n rows 2"]:
    """Return for each sample (kind, share of the other in 1/256), and for each axis (place, side) of a box in 1/65536.

    Shares follow a Beta distribution, both of whose parameters are ``mixup`` or ``cutmix``; 0: not that kind. If both
    are in use, each sample has either with probability 1/2.
    """
    which, drawn, *places = torch.rand((2 + axes, samples), generator=generator, dtype=torch.float64)
    cut = which < 0.5 if mixup and cutmix else torch.full_like(which, bool(cutmix), dtype=torch.bool)
    shares = torch.where(cut, _beta(cutmix, drawn), _beta(mixup, drawn))
    side = shares.pow(1 / axes).unsqueeze(1).expand(-1, axes)
    kind = torch.where(cut, _CUT, _MIXED)
    first = torch.stack([kind, (shares * 256).round().long()], -1).unsqueeze(1)
    return torch.cat([first, (torch.stack([torch.stack(places, 1), side], -1) * _WHOLE).round().long()], 1)


def partners(count: int, part: tuple[int, int] = (0, 1)) -> Int64[Tensor, " B"]:
    """Return for each place of a batch the place of the image it is mixed with: within its part, in reverse.

    >>> partners(4).tolist(), partners(5, (0, 2)).tolist()
    ([3, 2, 1, 0], [2, 1, 0, 4, 4])
    """
    size = -(-count // part[1])
    places = torch.arange(count)
    first = places // size * size
    return (2 * first + size - 1 - places).clamp_max(count - 1)


def shares_of(mixing: Int64[Tensor, "B rows 2"], size: Sequence[int]) -> Float[Tensor, " B"]:
    """Return the share that the other image has in each: in its pixels, and so in its target."""
    pixels = torch.ones(len(mixing), dtype=torch.float64)
    for axis, length in enumerate(size):
        start, stop = _box(mixing[:, 1 + axis], length)
        pixels = pixels * (stop - start) / length
    shares = torch.where(mixing[:, 0, 0] == _CUT, pixels, mixing[:, 0, 1] / 256)
    return shares.float()


def mixed(
    pixels: Shaped[Tensor, "B C *s"],
    mixing: Int64[Tensor, "B rows 2"],
    box: Sequence[tuple[int, int]],
    size: Sequence[int],
) -> Shaped[Tensor, "B C *s"]:
    """Return the pixels in a box of images of some size, mixed with those of the reversed batch."""
    other = pixels.flip(0)
    inside = torch.ones((), dtype=torch.bool, device=pixels.device)
    for axis, ((first, last), length) in enumerate(zip(box, size, strict=True)):
        start, stop = _box(mixing[:, 1 + axis], length)
        places = torch.arange(first, last, device=pixels.device)
        within = (places >= start.unsqueeze(1)) & (places < stop.unsqueeze(1))
        shape = [len(pixels)] + [1] * (pixels.ndim - 1)
        shape[2 + axis] = last - first
        inside = inside & within.view(shape)
    kind, share = (mixing[:, 0, i].view(-1, *[1] * (pixels.ndim - 1)) for i in range(2))
    cut = torch.where(inside & (kind == _CUT), other, pixels)
    return torch.where(kind == _MIXED, blended(pixels, other, share), cut)


def _box(row: Int64[Tensor, "B 2"], length: int) -> tuple[Tensor, Tensor]:
    """Return where a box begins and ends along an axis."""
    side = (row[:, 1] * length + _WHOLE // 2) // _WHOLE
    start = ((length - side) * row[:, 0] + _WHOLE // 2) // _WHOLE
    return start, start + side


def _beta(parameter: float, drawn: Tensor) -> Tensor:
    if not parameter:
        return torch.zeros_like(drawn)
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(parameter, parameter, drawn.numpy()))

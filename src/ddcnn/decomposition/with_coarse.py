"""`WithCoarse`: two levels. One more local CNN sees the whole image, reduced by area averaging.

One-level Schwarz methods do not scale without a coarse level, which carries what is global; nor does a decision that is
made of parts alone know of what crosses the cuts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Decomposition, Subdomain, whole_box
from ddcnn.decomposition.values import by
from ddcnn.errors import DecompositionError

_EXACT = {torch.float32: 2**24, torch.float64: 2**53}  # integers up to which each is represented


@dataclass(frozen=True)
class Reduced(Subdomain):
    """The whole image, reduced by area averaging. It owns no pixel: those of the image are others'.

    Attributes
    ----------
    size
        Of its subimages, in pixels.
    """

    size: tuple[int, ...]

    remedy = "a larger coarse level"

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of a subimage in pixels."""
        return self.size

    @property
    def sees(self) -> str:
        """Which pixels it sees, in words."""
        return f"the whole image, reduced to {by(self.size)} pixels"

    def view(self, pixels: Shaped[Tensor, "B C *b"]) -> Float[Tensor, "B C *s"]:
        """Return the reduced images, in float32."""
        return area_average(pixels, self.size)

    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write nothing."""


class WithCoarse(Decomposition):
    """A decomposition, and behind its subdomains the coarse level.

    The coarse CNN has the width of the other local CNNs: the width rule counts the fine subdomains alone. So it has
    about 1/N of the parameters of the global CNN, and where its size is that of a subimage it runs with them as one.

    Parameters
    ----------
    decomposition
        Any; also one with a coarse level, for three levels.
    size
        Pixels per axis of the reduced image, or one number for all axes. ``"auto"``: the size of a subimage where
        subdomains form a grid or are interleaved, else that of N equal parts.

    Raises
    ------
    DecompositionError
        A size below 1.

    Examples
    --------
    >>> from ddcnn.decomposition import Grid
    >>> [s.shape for s in WithCoarse(Grid((2, 2)), (10, 10)).subdomains((28, 28))]
    [(14, 14), (14, 14), (14, 14), (14, 14), (10, 10)]
    >>> WithCoarse(Grid((4, 4, 2))).subdomains((128, 128, 64))[-1].shape
    (32, 32, 32)
    """

    def __init__(self, decomposition: Decomposition, size: Sequence[int] | Literal["auto"] = "auto") -> None:
        self.decomposition = decomposition
        self.size = None if isinstance(size, str) else tuple(size)
        if self.size is not None and (not self.size or min(self.size) < 1):
            raise DecompositionError(f"a coarse level needs at least 1 pixel along each axis, got {by(self.size)}")

    def __len__(self) -> int:
        """Return the number of subdomains, N, the coarse level included."""
        return len(self.decomposition) + 1

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"WithCoarse({self.decomposition!r}, {self.size or 'auto'!r})"

    def describe(self) -> str:
        """Return what is decomposed, and the size of the coarse level.

        >>> from ddcnn.decomposition import Grid
        >>> WithCoarse(Grid((2, 2)), (16, 16)).describe(), WithCoarse(Grid((2, 2))).describe()
        ('2x2-coarse16x16', '2x2-coarse')
        """
        return f"{self.decomposition.describe()}-coarse{by(self.size or ())}"

    @property
    def layout(self) -> tuple[int, ...]:
        """That of the fine level."""
        return self.decomposition.layout

    @property
    def fine(self) -> int:
        """Number of subdomains of the fine level."""
        return self.decomposition.fine

    def chunks(self, image_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what suits the fine level."""
        return self.decomposition.chunks(image_size)

    def subdomains(self, image_size: Sequence[int]) -> tuple[Subdomain, ...]:
        """Return those of the fine level, and then the coarse level."""
        image = tuple(image_size)
        fine = self.decomposition.subdomains(image)
        size = self._size(fine, image)
        if len(size) != len(image):
            raise DecompositionError(
                f"coarse level {by(size)} has {len(size)} axes, but the images are {by(image)}; give one number of "
                f"pixels per axis"
            )
        if any(n > pixels for n, pixels in zip(size, image, strict=True)):
            raise DecompositionError(
                f"coarse level {by(size)} is larger than the images, {by(image)} pixels; use a smaller size"
            )
        return (*fine, Reduced(len(fine), image, whole_box(image), size))

    def _size(self, fine: Sequence[Subdomain], image: tuple[int, ...]) -> tuple[int, ...]:
        if self.size is not None:
            return self.size * len(image) if len(self.size) == 1 else self.size
        if self.layout:
            return fine[0].shape
        part = self.fine ** (1 / len(image))
        return tuple(max(1, round(pixels / part)) for pixels in image)


def area_average(images: Shaped[Tensor, "B C *S"], size: Sequence[int]) -> Float[Tensor, "B C *s"]:
    """Reduce images: each new pixel is the mean of the area that it covers, parts of pixels counted as such.

    The sums have integer weights, and an order that does not depend on how many images there are or how they lie in
    memory. Of uint8 they are exact; a mean is rounded once, to float32. So equal images give equal results, bit for
    bit, in every process. Where sizes divide one another this is `torch.nn.functional.adaptive_avg_pool2d`.

    >>> area_average(torch.tensor([[[[1, 2, 6], [3, 4, 6]]]], dtype=torch.uint8), (1, 2)).tolist()
    [[[[2.3333332538604736, 5.0]]]]
    """
    total = math.prod(pixels // math.gcd(pixels, n) for pixels, n in zip(images.shape[2:], size, strict=True))
    small = images.dtype == torch.uint8 and 255 * total <= _EXACT[torch.float32]
    for axis, n in enumerate(size, start=2):
        images = _summed(images, axis, n, torch.float32 if small else torch.float64)
    return (images / total).float()


def _summed(images: Tensor, axis: int, n: int, dtype: torch.dtype) -> Tensor:
    """Return sums over n equal intervals of an axis, in units of a part of a pixel that goes into both."""
    pixels = images.shape[axis]
    common = math.gcd(pixels, n)
    interval, pixel = pixels // common, n // common  # lengths, in that unit
    if pixel == 1:
        places = [slice(k, None, interval) for k in range(interval)]
        parts = (images[(slice(None),) * axis + (place,)].to(dtype) for place in places)
        return _in_order(parts)
    starts = [interval * k for k in range(n)]  # plain numbers: whoever follows the tensors needs to know none of them
    most = max((start + interval - 1) // pixel - start // pixel for start in starts) + 1
    shape = (n, *(1,) * (images.ndim - 1 - axis))

    def part(k: int) -> Tensor:
        of_pixels = [start // pixel + k for start in starts]
        ends = [min((one + 1) * pixel, start + interval) for one, start in zip(of_pixels, starts, strict=True)]
        begins = [max(one * pixel, start) for one, start in zip(of_pixels, starts, strict=True)]
        weights = [max(end - begin, 0) for end, begin in zip(ends, begins, strict=True)]
        places = torch.tensor([min(one, pixels - 1) for one in of_pixels], device=images.device)
        chosen = images.index_select(axis, places)
        return chosen.to(dtype) * torch.tensor(weights, dtype=dtype, device=images.device).view(shape)

    return _in_order(part(k) for k in range(most))


def _in_order(parts: Iterable[Tensor]) -> Tensor:
    """Add one after the other: the order is part of the result."""
    return functools.reduce(torch.add, parts)

"""`Boxes`: rectangles, given or random, which may overlap and need not cover the image."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from jaxtyping import Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Box, Decomposition, Subdomain, at, slices
from ddcnn.decomposition.values import MOST_SUBDOMAINS, by, counts, whole_number
from ddcnn.errors import DecompositionError

_FORM = re.compile(r"\d{1,9}-\d{1,9}(x\d{1,9}-\d{1,9})*")


@dataclass(frozen=True)
class Patch(Subdomain):
    """A box of pixels, as it is.

    Attributes
    ----------
    before
        The boxes that own what they share with this one.
    """

    before: tuple[Box, ...]

    remedy = "larger boxes"

    def paste(self, subimages: Shaped[Tensor, "... *s"], images: Shaped[Tensor, "... *S"]) -> None:
        """Write what lies in no box before this one."""
        own = torch.ones(self.shape, dtype=torch.bool)
        for other in self.before:
            own[
                tuple(
                    slice(max(a - start, 0), max(min(b, stop) - start, 0))
                    for (a, b), (start, stop) in zip(other, self.box, strict=True)
                )
            ] = False
        own = own.to(images.device)
        images[at(slices(self.box))][..., own] = subimages[..., own]


class Boxes(Decomposition):
    """Rectangles: given, or so many random ones. A pixel that several see is owned by the first of them.

    Parameters
    ----------
    parts
        The boxes, (start, stop) in pixels per axis each, such as ``[[[0, 14], [0, 28]], [[14, 28], [7, 21]]]``, or as
        text, ``"0-14x0-28+14-28x7-21"``; or how many random ones.
    size
        Of random ones: the share of each axis that they span.
    seed
        Of random ones: equal seeds give equal boxes, everywhere.

    Raises
    ------
    DecompositionError
        There is no such box.

    Examples
    --------
    >>> [s.box for s in Boxes("0-14x0-28+14-28x7-21").subdomains((28, 28))]
    [((0, 14), (0, 28)), ((14, 28), (7, 21))]
    >>> [s.shape for s in Boxes(2, size=0.25).subdomains((28, 20))]
    [(7, 5), (7, 5)]
    """

    def __init__(
        self, parts: Sequence[Sequence[Sequence[int]]] | int | str = 9, *, size: float = 0.5, seed: int | str = 0
    ) -> None:
        self.boxes: tuple[Box, ...] = ()
        if isinstance(parts, str) or (isinstance(parts, Sequence) and not all(isinstance(one, int) for one in parts)):
            self.boxes = _boxes(parts)
            self.count = len(self.boxes)
        else:
            (self.count,) = counts("boxes", parts, "boxes:9 or boxes:0-14x0-28+14-28x7-21", axes=(1,))
        if self.count > MOST_SUBDOMAINS:
            raise DecompositionError(f"{self.count} boxes are too many, at most {MOST_SUBDOMAINS} are possible")
        if not isinstance(size, int | float) or not 0 < size <= 1:
            raise DecompositionError(f"boxes: size should be above 0 and at most 1, got {size!r:.80}")
        self.size, self.seed = float(size), whole_number("boxes", "seed", seed)

    def __len__(self) -> int:
        """Return the number of subdomains, N."""
        return self.count

    def describe(self) -> str:
        """Return the number of boxes, and what makes random ones."""
        if self.boxes:
            return f"boxes{self.count}-given"
        return f"boxes{self.count}-size{self.size:g}" + (f"-seed{self.seed}" if self.seed else "")

    def subdomains(self, image_size: Sequence[int]) -> tuple[Patch, ...]:
        """Return the N subdomains, in the order in which they were given or drawn."""
        size = tuple(image_size)
        boxes = self.boxes or self._drawn(size)
        for n, box in enumerate(boxes):
            if len(box) != len(size) or any(stop > pixels for (_, stop), pixels in zip(box, size, strict=True)):
                raise DecompositionError(
                    f"box {n}, {_written(box)}, does not lie in images of {by(size)} pixels; give start-stop per axis, "
                    f"counted from 0"
                )
        return tuple(Patch(n, size, box, boxes[:n]) for n, box in enumerate(boxes))

    def _drawn(self, size: Sequence[int]) -> tuple[Box, ...]:
        draw = random.Random(self.seed).random  # the same in every version of Python
        lengths = [max(1, round(self.size * pixels)) for pixels in size]
        boxes = []
        for _ in range(self.count):
            starts = [int(draw() * (pixels - n + 1)) for pixels, n in zip(size, lengths, strict=True)]
            boxes.append(tuple((start, start + n) for start, n in zip(starts, lengths, strict=True)))
        return tuple(boxes)


def _boxes(parts: str | Sequence[object]) -> tuple[Box, ...]:
    """Return given boxes, or raise a `DecompositionError` that shows the first that is none."""
    found: list[Box] = []
    for one in parts.split("+") if isinstance(parts, str) else parts:
        box = _read(one) if isinstance(one, str) else one
        if not _is_box(box):
            raise DecompositionError(
                f"boxes: {one!r:.80} is no box with start < stop along each axis; write for example "
                f"boxes:0-14x0-28+14-28x7-21, or boxes:9 for random ones"
            )
        found.append(tuple((start, stop) for start, stop in box))
    return tuple(found)


def _read(text: str) -> object:
    return [[int(end) for end in axis.split("-")] for axis in text.split("x")] if _FORM.fullmatch(text) else None


def _is_box(one: object) -> TypeGuard[Sequence[Sequence[int]]]:
    def is_interval(axis: object) -> bool:
        pair = isinstance(axis, list | tuple) and len(axis) == 2 and all(isinstance(end, int) for end in axis)
        return pair and 0 <= axis[0] < axis[1]  # type: ignore[index]

    return isinstance(one, list | tuple) and len(one) > 0 and all(map(is_interval, one))


def _written(box: Box) -> str:
    return "x".join(f"{start}-{stop}" for start, stop in box)

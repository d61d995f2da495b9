"""How much memory images may take while they are read: asked before the memory is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ddcnn.errors import DataError
from ddcnn.text import size_text

_LAZY = 2**30  # bytes: what is larger is not held where it need not be


@dataclass(frozen=True)
class Room:
    """What a reader may do.

    Attributes
    ----------
    memory
        Bytes that images may take; None: no limit.
    limit
        Bytes that everything together may take, for messages; None: not known.
    lazily
        Whether large images should stay on disk, as `ddcnn.data.lazy.Lazy`.
    """

    memory: int | None = None
    limit: int | None = None
    lazily: bool = False

    def leaves_on_disk(self, size: int) -> bool:
        """Return whether images of so many bytes should stay on disk."""
        return self.lazily and size > (_LAZY if self.memory is None else self.memory // 2)

    def require(self, source: str, shape: Sequence[int], item: int, *, besides: int = 0) -> None:
        """Raise a `DataError` if images (n, C, *S) of ``item`` bytes a number, and bytes besides, are too large."""
        size = math.prod(shape) * item + besides
        if self.memory is not None and size > self.memory:
            needed, allowed = size_text(size, unlike=self.memory), size_text(self.memory, unlike=size)
            of = "" if self.limit is None else f" of {size_text(self.limit)}, less what is in use already"
            raise DataError(
                f"{source}: {shape[0]:,} images of {'x'.join(map(str, shape[1:]))} take {needed}, more than "
                f"the {allowed} that may be used{of}; make a store of them with ddcnn data prepare, or "
                "allow more (--memory)"
            )


_ROOM: ContextVar[Room] = ContextVar("room")


def room() -> Room:
    """Return what the reader that runs now may do."""
    return _ROOM.get(Room())


@contextmanager
def given(allowed: Room) -> Iterator[None]:
    """Set what readers may do in the block."""
    before = _ROOM.set(allowed)
    try:
        yield
    finally:
        _ROOM.reset(before)

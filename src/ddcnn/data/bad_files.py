"""Files that cannot be used: what to do about them, and a record that names each with its reason."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.image_memory import Room, room
from ddcnn.data.lazy import Lazy
from ddcnn.data.prefetch import futures_ahead, readers
from ddcnn.errors import DataError


@dataclass(frozen=True)
class BadFile:
    """A file that was left out, and why."""

    file: str
    reason: str


class BadFiles:
    """Decides what becomes of a file that cannot be used, as ``data.on_bad_file`` says.

    Attributes
    ----------
    found
        The files that were left out.
    done
        What was done to files that were read, with counts.
    """

    def __init__(self, config: DataConfig | None = None) -> None:
        self.stop = config is None or config.on_bad_file == "error"
        self.found: list[BadFile] = []
        self.done: Counter[str] = Counter()
        self._lock = threading.Lock()

    def did(self, what: str) -> None:
        """Count something that was done to a file; called from any thread."""
        with self._lock:
            self.done[what] += 1

    def notes(self) -> tuple[str, ...]:
        """Return what was done to files, a line each."""
        return tuple(f"{what}: {count:,} file{'' if count == 1 else 's'}" for what, count in sorted(self.done.items()))

    @contextmanager
    def named(self, path: Path | str) -> Iterator[None]:
        """Leave the file out if the block raises a `DataError`, or let the error pass if bad files are errors."""
        try:
            yield
        except DataError as error:
            if self.stop:
                raise
            self.found.append(BadFile(str(path), str(error)))


def read_all(
    paths: Sequence[Path], read: Callable[[Path], Shaped[np.ndarray, "C *S"]], bad: BadFiles
) -> tuple[Shaped[np.ndarray, "m C *S"], Int64[np.ndarray, "m"]]:
    """Read files of one size in parallel: one channel if all have one, else three.

    Returns
    -------
    images, kept
        Those that could be read, and their positions in ``paths``.

    Raises
    ------
    DataError
        A file cannot be read, or has another size than the others (and bad files are errors); or none can be read; or
        they are larger than the memory that may be used.
    """
    images, kept = _read_all(paths, read, bad, replace(room(), lazily=False), "these files")
    assert not isinstance(images, Lazy)
    return images, kept


def read_or_leave(
    paths: Sequence[Path], read: Callable[[Path], Shaped[np.ndarray, "C *S"]], bad: BadFiles, source: str
) -> tuple[Shaped[Tensor, "m C *S"] | Lazy, Int64[np.ndarray, "m"]]:
    """Do as `read_all`, or leave large images on disk if that is asked for (`ddcnn.data.image_memory`).

    Each file is then read once now, to know that it can be, and again whenever it is needed.

    Parameters
    ----------
    source
        The name of the data, for messages.
    """
    images, kept = _read_all(paths, read, bad, room(), source)
    return images if isinstance(images, Lazy) else torch.from_numpy(images), kept


def _read_all(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray], bad: BadFiles, allowed: Room, source: str
) -> tuple[np.ndarray | Lazy, np.ndarray]:
    images: list[np.ndarray | None] = [None] * len(paths)
    shapes: list[tuple[int, ...] | None] = [None] * len(paths)
    dtype, leave, channels = None, False, 0
    threads = readers()  # decoding releases the interpreter lock
    for i, future in enumerate(futures_ahead(read, paths, depth=4 * threads, threads=threads)):
        found: list[np.ndarray] = []
        with bad.named(paths[i]):
            found.append(future.result())
        if not found:
            continue
        image = found[0]
        dtype = image.dtype if dtype is None else dtype
        if image.shape[0] > channels and not leave:  # all get as many
            channels, whole = image.shape[0], (len(paths), *image.shape)
            leave = allowed.leaves_on_disk(math.prod(whole) * dtype.itemsize)
            if leave:
                images = [None] * len(paths)
            else:
                allowed.require(source, whole, dtype.itemsize)
        shapes[i], images[i] = image.shape, None if leave else image
    _leave_out_other_sizes(paths, shapes, bad)
    kept = [i for i, shape in enumerate(shapes) if shape is not None]
    if not kept or dtype is None:
        raise DataError(f"none of {len(paths)} files can be used; the first: {bad.found[0].reason}")
    shape = (len(kept), max(one[0] for one in shapes if one), *(shapes[kept[0]] or ())[1:])
    stacked = _lazy([paths[i] for i in kept], read, shape, dtype) if leave else _stacked(images, kept, shape, dtype)
    return stacked, np.array(kept, dtype=np.int64)


def _leave_out_other_sizes(paths: Sequence[Path], shapes: list[tuple[int, ...] | None], bad: BadFiles) -> None:
    sizes = Counter(shape[1:] for shape in shapes if shape is not None)
    if len(sizes) < 2:
        return
    usual = next(shape[1:] for shape in shapes if shape is not None)
    if not bad.stop:
        usual = sizes.most_common(1)[0][0]
    example = next(path for path, shape in zip(paths, shapes, strict=True) if shape is not None and shape[1:] == usual)
    for i, shape in enumerate(shapes):
        if shape is not None and shape[1:] != usual:
            with bad.named(paths[i]):
                shapes[i] = None
                raise DataError(_other_size(example, usual, paths[i], shape[1:]))


def _other_size(example: Path, usual: tuple[int, ...], path: Path, size: tuple[int, ...]) -> str:
    ours, other = ("x".join(map(str, one)) for one in (usual, size))
    if len(usual) != len(size):
        return f"{example} has size {ours}, but {path} has {other}; keep images and volumes in separate data sets"
    axes = " (H x W)" if len(usual) == 2 else ""
    return (
        f"images should have one size, but {example} is {ours}{axes} and {path} is {other}; "
        f"give --image-size {ours} (data.image_size) to resize all"
    )


def _stacked(
    images: list[np.ndarray | None], kept: Sequence[int], shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    stacked = np.empty(shape, dtype)
    for row, i in enumerate(kept):
        stacked[row] = images[i]  # one channel is repeated
        images[i] = None  # frees it: the images are not in memory twice
    return stacked


def _lazy(paths: Sequence[Path], read: Callable[[Path], np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> Lazy:
    def image(i: int) -> Tensor:
        found = np.broadcast_to(read(paths[i]), shape[1:])  # one channel is repeated
        return torch.from_numpy(np.array(found, dtype, order="C"))

    return Lazy(image, shape, torch.uint8 if dtype == np.uint8 else torch.float32)

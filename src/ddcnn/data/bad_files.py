"""Files that cannot be used: what to do about them, and a record that names each with its reason."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from ddcnn.config import DataConfig
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
    paths: Sequence[Path],
    read: Callable[[Path], Shaped[np.ndarray, "C *S"]],
    bad: BadFiles,
    option: str = "data.image_size",
) -> tuple[Shaped[np.ndarray, "m C *S"], Int64[np.ndarray, "m"]]:
    """Read files of one size in parallel: one channel if all have one, else three.

    Returns
    -------
    images, kept
        Those that could be read, and their positions in ``paths``.

    Raises
    ------
    DataError
        A file cannot be read, or has another size than the others (and bad files are errors); or none can be read.
    """
    images: list[np.ndarray | None] = [None] * len(paths)
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # decoding releases the interpreter lock
    try:
        waiting = [threads.submit(read, path) for path in paths]
        for i, (path, future) in enumerate(zip(paths, waiting, strict=True)):
            with bad.named(path):
                images[i] = future.result()
    finally:
        threads.shutdown(cancel_futures=True)
    _leave_out_other_sizes(paths, images, bad, option)
    kept = [i for i, image in enumerate(images) if image is not None]
    if not kept:
        raise DataError(f"none of {len(paths)} files can be used; the first: {bad.found[0].reason}")
    return _stacked(images, kept), np.array(kept, dtype=np.int64)


def _leave_out_other_sizes(paths: Sequence[Path], images: list[np.ndarray | None], bad: BadFiles, option: str) -> None:
    sizes = Counter(image.shape[1:] for image in images if image is not None)
    if len(sizes) < 2:
        return
    usual = next(image.shape[1:] for image in images if image is not None)
    if not bad.stop:
        usual = sizes.most_common(1)[0][0]
    example = next(
        path for path, image in zip(paths, images, strict=True) if image is not None and image.shape[1:] == usual
    )
    for i, image in enumerate(images):
        if image is not None and image.shape[1:] != usual:
            with bad.named(paths[i]):
                images[i] = None
                raise DataError(_other_size(example, usual, paths[i], image.shape[1:], option))


def _other_size(example: Path, usual: tuple[int, ...], path: Path, size: tuple[int, ...], option: str) -> str:
    ours, other = ("x".join(map(str, one)) for one in (usual, size))
    if len(usual) != len(size):
        return f"{example} has size {ours}, but {path} has {other}; keep images and volumes in separate data sets"
    axes = " (H x W)" if len(usual) == 2 else ""
    return (
        f"images should have one size, but {example} is {ours}{axes} and {path} is {other}; "
        f"give --set {option}={ours} to resize all"
    )


def _stacked(images: list[np.ndarray | None], kept: Sequence[int]) -> np.ndarray:
    first = images[kept[0]]
    assert first is not None
    channels = max(image.shape[0] for image in images if image is not None)
    stacked = np.empty((len(kept), channels, *first.shape[1:]), first.dtype)
    for row, i in enumerate(kept):
        stacked[row] = images[i]  # one channel is repeated
        images[i] = None  # frees it: the images are not in memory twice
    return stacked

"""The arrays of an ``.npz`` or ``.npy`` file: their shapes before one is read, then whole, in pieces, or mapped."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy

from ddcnn.data.files import open_file
from ddcnn.errors import DataError, in_one_line

ALONE = ""  # key of the array of an .npy file

_MAGIC = b"\x93NUMPY"
_PIECE = 2**24  # bytes read at once
_MOST = 2**36  # bytes that are believed to be declared
_SMALL = 2**30  # of an array that holds no images


@dataclass(frozen=True)
class Declared:
    """What the header of an array says; ``start`` is where its numbers begin in its member of the archive."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayFile:
    """An ``.npz`` file; not safe to be used by several threads.

    Parameters
    ----------
    path
        The file.
    alone
        Whether it may be an ``.npy`` file as well; its array has the key `ALONE`. What it is tells its content, not its
        name.

    Attributes
    ----------
    arrays
        What is declared, by key.

    Raises
    ------
    DataError
        The file is none, or is damaged, or holds Python objects.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self.path = path
        self._file = open_file(path)
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            with self._named():
                self._open(alone=alone)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ArrayFile:
        """Return the open file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._archive is not None:
            self._archive.close()
        self._file.close()

    def read(self, key: str, most: int = _SMALL) -> np.ndarray:
        """Return an array, or raise a `DataError` if it is damaged or larger than ``most`` bytes."""
        declared = self.arrays[key]
        if declared.nbytes > most:
            raise DataError(
                f"{self.path}: {key} declares {declared.nbytes:,} bytes, more than the {most:,} it may have"
            )
        with self._named(), self._member(key) as file:
            return np.asarray(npy.read_array(file, allow_pickle=False))

    def pieces(self, key: str) -> Iterator[Shaped[np.ndarray, "m *S"]]:
        """Yield an array in pieces of at least one row, so that it is not in memory twice."""
        declared = self.arrays[key]
        if declared.fortran and len(declared.shape) > 1:
            yield self.read(key, most=_MOST)
            return
        row = declared.nbytes // max(1, declared.shape[0])
        step = max(1, _PIECE // max(1, row))
        with self._named(), self._member(key) as file:
            file.read(declared.start)
            for first in range(0, declared.shape[0], step):
                rows = min(step, declared.shape[0] - first)
                content = _exactly(file, rows * row)
                yield np.frombuffer(content, declared.dtype).reshape(rows, *declared.shape[1:])

    def mapped(self, key: str) -> Shaped[np.ndarray, "n *S"] | None:
        """Return an array whose numbers stay on disk until they are used; None if it is compressed, or alone."""
        if key not in self._members:
            return None
        member, declared = self._members[key], self.arrays[key]
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        self._file.seek(member.header_offset + 26)  # lengths of the name and of the extra field of the local header
        start = member.header_offset + 30 + sum(struct.unpack("<HH", self._file.read(4))) + declared.start
        return np.memmap(
            self.path,
            declared.dtype,
            mode="r",
            offset=start,
            shape=declared.shape,
            order="F" if declared.fortran else "C",
        )

    def _open(self, *, alone: bool) -> None:
        if self._file.read(len(_MAGIC)) == _MAGIC:
            if not alone:
                raise DataError(
                    f"{self.path} is not an .npz file but a single array, .npy; write images and labels with "
                    "numpy.savez"
                )
            self.arrays = {ALONE: self._declared(ALONE)}
            return
        if not zipfile.is_zipfile(self._file):
            wanted = "neither an .npz nor an .npy file" if alone else "not an .npz file"
            raise DataError(f"{self.path} is {wanted}, or it is truncated; write it with numpy.savez")
        self._archive = zipfile.ZipFile(self._file)
        found = self._archive.infolist()
        if (declared := sum(member.file_size for member in found)) > _MOST:
            raise DataError(
                f"{self.path} declares {declared:,} bytes, more than the {_MOST:,} that are read; make it smaller"
            )
        self._members = {one.filename.removesuffix(".npy"): one for one in found if one.filename.endswith(".npy")}
        self.arrays = {key: self._declared(key) for key in self._members}

    def _declared(self, key: str) -> Declared:
        what = key or "it"
        with self._member(key) as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype.hasobject:
                raise DataError(
                    f"{self.path} cannot be read: {what} holds Python objects; arrays of Python objects are not read, "
                    "use a numeric or string type"
                )
            declared = Declared(tuple(map(int, shape)), dtype, bool(fortran), file.tell())
        size = self._members[key].file_size if key in self._members else os.fstat(self._file.fileno()).st_size
        if declared.start + declared.nbytes > size:
            raise DataError(f"{self.path} cannot be read: {what} declares more than it holds; write it again")
        return declared

    def _member(self, key: str) -> AbstractContextManager[io.BufferedIOBase]:
        """Return an array as a file that is read from its start."""
        if self._archive is not None:
            return cast(io.BufferedIOBase, self._archive.open(self._members[key]))
        self._file.seek(0)
        return nullcontext(self._file)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # a damaged archive raises anything, from zlib.error to SyntaxError
            raise DataError(
                f"{self.path} cannot be read: {in_one_line(error)}; write it again with numpy.savez"
            ) from None


def _exactly(file: io.BufferedIOBase, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("it is truncated")
    return content

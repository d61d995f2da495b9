"""A shard: compressed chunks one after the other, then an index of where each is, then the CRC-32C of the index.

This is the codec ``sharding_indexed`` of Zarr v3, with chunks of one sample, compressed by zstd
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html).
"""

from __future__ import annotations

import hashlib
import importlib
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.data.files import open_regular
from ddcnn.errors import DataError
from ddcnn.extras import needed

_LEVEL = 1  # the fastest; higher levels gain few per cent on images
_NONE = 2**64 - 1  # offset and length of a chunk that is not there
_MAGIC = 0xFD2FB528


class DamagedError(Exception):
    """A shard or a chunk is not what it should be; the message says in what, and not where."""


def require_codecs() -> None:
    """Raise a `DataError` that says what to install, if the packages that (de)compress are missing."""
    for name in ("numcodecs", "google_crc32c"):
        with needed("a store needs more packages", "large", DataError):
            importlib.import_module(name)


def compress(pixels: np.ndarray) -> bytes:
    """Return a chunk."""
    return bytes(_zstd().encode(np.ascontiguousarray(pixels)))


def decompress(chunk: bytes, digest: bytes, out: np.ndarray) -> None:
    """Write the pixels of a chunk to an array; only what has this SHA-256, and the size of the array, is touched.

    Raises
    ------
    DamagedError
        It has not.
    """
    if hashlib.sha256(chunk).digest() != digest:
        raise DamagedError("its SHA-256 differs")
    if content_size(chunk) != out.nbytes:
        raise DamagedError(f"it should decompress to {out.nbytes} bytes, and declares {content_size(chunk)}")
    try:
        _zstd().decode(chunk, out)
    except (RuntimeError, ValueError) as error:
        raise DamagedError(f"it cannot be decompressed ({error})") from None


def content_size(chunk: bytes) -> int | None:
    """Return the size that a zstd frame declares for its content (RFC 8878, section 3.1.1.1); None if it does not.

    >>> content_size(bytes.fromhex("28b52ffd2004"))
    4
    """
    if len(chunk) < 5 or struct.unpack_from("<I", chunk)[0] != _MAGIC:
        return None
    flags = chunk[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width or len(chunk) < start + width:
        return None
    return int.from_bytes(chunk[start : start + width], "little") + (256 if width == 2 else 0)


def join(chunks: Sequence[bytes], places: int) -> bytes:
    """Return a shard with room for so many chunks, of which the first are given."""
    lengths = [len(chunk) for chunk in chunks]
    index = np.full((places, 2), _NONE, "<u8")
    index[: len(chunks), 0], index[: len(chunks), 1] = np.cumsum([0, *lengths[:-1]]), lengths
    raw = index.tobytes()
    return b"".join([*chunks, raw, struct.pack("<I", _crc(raw))])


class Shard:
    """A shard on disk, whose index was read and found right.

    Parameters
    ----------
    path
        The file.
    places, used
        Chunks that it has room for, and has.
    largest
        Bytes of the largest chunk that can be.

    Raises
    ------
    DamagedError
        The file is missing or truncated, or its index is damaged or points elsewhere.
    """

    def __init__(self, path: Path, *, places: int, used: int, largest: int) -> None:
        self.path = path
        size = 16 * places + 4
        with _opened(path) as handle:
            length = os.fstat(handle).st_size
            if length < size:
                raise DamagedError(f"its file {path} is truncated: {length} bytes, at least {size} are needed")
            raw = _read(handle, size, length - size)
        self.bytes_read = size
        if struct.unpack("<I", raw[-4:])[0] != _crc(raw[:-4]):
            raise DamagedError(f"the index of its file {path} is damaged")
        self.index = np.frombuffer(raw[:-4], "<u8").reshape(places, 2)[:used]
        offsets, lengths = self.index[:, 0], self.index[:, 1]
        room = length - size
        if (lengths > min(largest, room)).any() or (offsets > room - lengths).any():
            raise DamagedError(f"the index of its file {path} points outside of it")

    def chunk(self, place: int) -> bytes:
        """Return a chunk as it is on disk."""
        offset, length = (int(number) for number in self.index[place])
        with _opened(self.path) as handle:
            return _read(handle, length, offset)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        with open_regular(path) as file:
            yield file.fileno()
    except OSError as error:
        raise DamagedError(f"its file {path} cannot be read: {error.strerror}") from None


def _read(handle: int, length: int, offset: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)
    content = os.read(handle, length)
    while len(content) < length:
        more = os.read(handle, length - len(content))
        if not more:
            raise DamagedError("its file is truncated")
        content += more
    return content


def _zstd() -> Any:
    from numcodecs.zstd import Zstd

    return Zstd(level=_LEVEL)


def _crc(content: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(content))

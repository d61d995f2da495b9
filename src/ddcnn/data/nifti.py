"""NIfTI volumes to arrays: one orientation, one size, one range of values, whatever the scanner wrote.

Only the header is parsed by nibabel. The voxels are read here, no further than the header declares and only if that is
within a limit: a compressed file of a few kB can declare, or unfold to, more than any memory holds.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ddcnn.data.files import open_file
from ddcnn.data.volumes import finished, oriented, scaled
from ddcnn.errors import DataError, in_one_line
from ddcnn.extras import needed

SUFFIXES = (".nii", ".nii.gz")
_READER = "NIfTI files are read by the package nibabel"
_MAX_BYTES = 2**31
_MAX_OFFSET = 2**26
_PIECE = 2**24


def is_nifti(path: Path) -> bool:
    """Return whether a file is named like a NIfTI volume."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(
    path: Path | str, size: Sequence[int] | None = None, window: tuple[float, float] | None = None
) -> Shaped[np.ndarray, "1 D H W"]:
    """Read one volume.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``, NIfTI-1 or NIfTI-2, with 3 axes; axes are flipped and exchanged so that they run as
        `ddcnn.data.volumes.ORIENTATION` says, as nearly as that is possible without interpolation.
    size
        Voxels along each axis to resize to, linear with antialiasing; None keeps the volume's own.
    window
        Values that become 0 and 255; beyond them is clipped.

    Returns
    -------
    volume
        (1, D, H, W), uint8 with a window, else float32 in the units of the file (Hounsfield units for CT).

    Raises
    ------
    DataError
        nibabel is not installed, or the file is truncated, damaged, no volume, too large, not finite or constant.
    """
    path = Path(path)
    try:
        with needed(_READER, "medical", DataError), _opened(path) as stream, np.errstate(all="ignore"):
            values = _values(path, stream)
    except DataError:
        raise
    except Exception as error:  # on damaged files gzip, zlib, struct, numpy and nibabel each raise their own
        raise DataError(f"{path} cannot be read: {in_one_line(error)}; remove it or replace it") from None
    return finished(path, values, size, window)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    with open_file(path) as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unfolded:
                yield unfolded
        else:
            yield file


def _values(path: Path, stream: io.BufferedIOBase) -> np.ndarray:
    """Return the voxels in our orientation, scaled as the header says."""
    header, read = _header(path, stream)
    shape, dtype = _shape(path, header), header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path} should hold real numbers, got {dtype}; convert it")
    offset = max(int(header.get_data_offset()), header.sizeof_hdr + 4)
    expected = math.prod(shape) * dtype.itemsize
    _check_declared(path, shape, dtype, offset)
    start = np.frombuffer(read, np.uint8)[offset:]
    raw = start.tobytes() + _bytes(stream, offset + expected - len(read))[max(0, offset - len(read)) :]
    if len(raw) < expected:
        raise DataError(f"{path} is truncated: expected {expected:,} bytes of voxels, got {len(raw):,}; replace it")
    stream.read(1)  # at the end of a compressed stream, its checksum is compared
    values = np.frombuffer(raw, dtype, math.prod(shape)).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    if slope is not None and (slope, inter) != (1, 0):
        values = scaled(values, slope, inter)
    return oriented(path, values, header.get_best_affine())


def _header(path: Path, stream: io.BufferedIOBase) -> tuple[Any, bytes]:
    """Return the header and the bytes that were read for it."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    read = stream.read(540)
    for kind, length, magic, place in ((Nifti1Header, 348, b"n+1", 344), (Nifti2Header, 540, b"n+2", 4)):
        if read[place : place + 3] == magic and len(read) >= length:
            return kind.from_fileobj(io.BytesIO(read[:length]), check=False), read
    if not read:
        raise DataError(f"{path} is empty; remove it or replace it")
    raise DataError(f"{path} is not a NIfTI volume in one file (.nii, .nii.gz), or it is truncated; replace it")


def _shape(path: Path, header: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path} should be a volume with 3 axes, got shape {shape}")
    return shape


def _check_declared(path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> None:
    """Raise a `DataError` if a header declares more than is read."""
    if (size := math.prod(shape) * dtype.itemsize) > _MAX_BYTES:
        text = "x".join(map(str, shape))
        raise DataError(
            f"{path} declares {text} voxels of {dtype}, {size:,} bytes, more than the {_MAX_BYTES:,} that are read; "
            "make it smaller, or remove it"
        )
    if offset > _MAX_OFFSET:
        raise DataError(
            f"{path} declares {offset:,} bytes before its voxels (vox_offset), more than the {_MAX_OFFSET:,} that are "
            "passed over; repair the header, or remove it"
        )


def _bytes(stream: io.BufferedIOBase, count: int) -> bytes:
    """Read at most ``count`` bytes, piece by piece: memory grows with what is there, not with what is declared."""
    pieces = []
    while count > 0 and (piece := stream.read(min(count, _PIECE))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)

"""DICOM series to arrays: a folder with the slices of one volume, one file each, as scanners and archives write them.

pydicom parses the files. Pixels must be stored as they are: a file of a few kB that is compressed can unfold to more
than any memory holds, and the decoders for it are further packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ddcnn.data.files import open_file
from ddcnn.data.volumes import finished, oriented, scaled
from ddcnn.data.walk import list_folder, subfolders, walk
from ddcnn.errors import DataError, in_one_line
from ddcnn.extras import needed

_MAX_BYTES = 2**31
_MAX_FILES = 10_000
_PLAIN = {
    "1.2.840.10008.1.2": "implicit VR, little endian",
    "1.2.840.10008.1.2.1": "explicit VR, little endian",
    "1.2.840.10008.1.2.2": "explicit VR, big endian",
}
_SAME = ("SeriesInstanceUID", "Rows", "Columns", "PhotometricInterpretation")
_NEAR = {"ImageOrientationPatient": 1e-4, "PixelSpacing": 1e-4}  # cosines, and a fraction of a millimetre
_UNEVEN = 0.1  # of the distance between slices: more is a slice that is missing
_FLAT = 1e-3  # sine of the least angle between rows and columns
_GREY = ("MONOCHROME1", "MONOCHROME2")


def read_dicom(
    path: Path | str, size: Sequence[int] | None = None, window: tuple[float, float] | None = None
) -> Shaped[np.ndarray, "1 D H W"]:
    """Read one volume.

    Parameters
    ----------
    path
        A folder that holds one series of DICOM files with a slice each. Other files are passed over, but for those that
        look like slices: named as the slices are, or beginning as DICOM data do. Headers are compared as numbers.
    size, window
        As in `ddcnn.data.nifti.read_nifti`.

    Returns
    -------
    volume
        (1, D, H, W), oriented as `ddcnn.data.volumes.ORIENTATION` says; uint8 with a window, else float32 in the units
        of the rescaled values (Hounsfield units for CT); a Modality LUT is applied where the file has one.

    Raises
    ------
    DataError
        pydicom or nibabel is not installed; or a file is damaged, compressed or no DICOM; or they are of several series
        or sizes, in subfolders, too large, not evenly spaced, or constant.
    """
    path = Path(path)
    try:
        with needed("DICOM files are read by pydicom and nibabel", "medical", DataError):
            values = _values(path)
    except DataError:
        raise
    except Exception as error:  # on damaged files pydicom raises anything
        raise DataError(f"{path} cannot be read: {in_one_line(error)}; remove it or replace it") from None
    return finished(path, values, size, window)


def _values(path: Path) -> np.ndarray:
    files = _files(path)
    if len(files) > _MAX_FILES or sum(file.stat().st_size for file in files) > _MAX_BYTES:
        raise DataError(
            f"{path} holds more than {_MAX_FILES:,} DICOM files, or {_MAX_BYTES:,} bytes; is it one series?"
        )
    slices = [_slice(file) for file in files]
    first = slices[0]
    for file, one in zip(files, slices, strict=True):
        if differing := _differing(one, first):
            raise DataError(
                f"{path}: {file.name} and {files[0].name} differ in {differing}; put each series into a folder of "
                "its own"
            )
    across, down = _directions(files[0], first)
    positions = np.array([one.ImagePositionPatient for one in slices], float)
    heights = positions @ np.cross(across, down)
    order = np.argsort(heights)
    names = [files[i].name for i in order]
    step = _step(path, names, positions[order], heights[order])
    _check_line(path, names, positions[order], heights[order], max(map(float, first.PixelSpacing)))
    volume = np.stack([_pixels(files[i], slices[i]) for i in order], axis=2)
    affine = np.eye(4)
    affine[:3, 0] = down * float(first.PixelSpacing[0])
    affine[:3, 1] = across * float(first.PixelSpacing[1])
    affine[:3, 2] = step
    affine[:3, 3] = positions[order[0]]
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return oriented(path, volume, affine)


def _files(path: Path) -> list[Path]:
    """Return the DICOM files of a folder; whatever else looks like a slice of it is an error: it would be missing."""
    names = sorted(Path(entry.path) for entry in list_folder(path) if not entry.name.startswith("."))
    starts = {file: _start(file) for file in names if file.is_file() and file.name.upper() != "DICOMDIR"}
    files = [file for file, start in starts.items() if start[128:] == b"DICM"]
    if not files:
        raise DataError(f"{path} holds no DICOM file; name a folder with the slices of one volume")
    suffixes = {file.suffix.lower() for file in files} | {".dcm", ".dicom", ".ima"}
    odd = [file.name for file, start in starts.items() if file not in files and _like_slice(file, start, suffixes)]
    if odd:
        raise DataError(
            f"{path}: no DICOM files (without DICM after 128 bytes), though named like slices or beginning so: "
            f"{_listed(odd)}; repair them, for example with dcmconv, or remove them"
        )
    below = [file for name in subfolders(path)[0] for file in walk(path / name, None).files if file.is_file()]
    if inside := [file for file in below if _start(file)[128:] == b"DICM"]:
        raise DataError(f"{path} holds DICOM files in folders too, such as {inside[0]}; give one folder per series")
    return files


def is_dicom(file: Path) -> bool:
    """Tell by its first bytes whether a file is a DICOM file."""
    return _start(file)[128:] == b"DICM"


def _start(file: Path) -> bytes:
    with open_file(file) as content:
        return content.read(132)


def _like_slice(file: Path, start: bytes, suffixes: set[str]) -> bool:
    element = start[:4] in (b"\2\0\0\0", b"\2\0\1\0", b"\2\0\2\0", b"\2\0\x10\0") or start[:2] == b"\x08\0"
    return element or (file.suffix.lower() in suffixes and (bool(file.suffix) or not start))


def _differing(one: Any, first: Any) -> str | None:
    """Return the name of a field in which two slices differ, if they do."""
    for name in _SAME:
        if str(one.get(name)) != str(first.get(name)):
            return name
    for name, tolerance in _NEAR.items():
        ours, theirs = (np.array(each.get(name), float) for each in (one, first))
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=tolerance):
            return name
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _slice(file: Path) -> Any:
    """Read one file whose pixels are stored as they are."""
    import pydicom
    from pydicom.filereader import read_file_meta_info

    syntax = str(read_file_meta_info(file).get("TransferSyntaxUID", ""))
    if not syntax:
        raise DataError(
            f"{file} has no TransferSyntaxUID, which says how its pixels are stored; write it again, for example with "
            "dcmconv, or remove it"
        )
    if syntax not in _PLAIN:
        name = pydicom.uid.UID(syntax).name
        raise DataError(f"{file} is compressed ({name}); decompress it first, with gdcmconv --raw for example")
    one = pydicom.dcmread(file)
    missing = [name for name in (*_SAME, *_NEAR, "ImagePositionPatient", "PixelData") if name not in one]
    if missing:
        raise DataError(f"{file} has no {missing[0]}: it is no slice of a volume; remove it")
    if int(one.get("NumberOfFrames") or 1) != 1 or int(one.get("SamplesPerPixel", 1)) != 1:
        raise DataError(f"{file} should hold one grey slice; files with several frames or colours are not read")
    if one.PhotometricInterpretation not in _GREY:
        raise DataError(
            f"{file} should hold grey values, got {one.PhotometricInterpretation}; convert it to MONOCHROME2"
        )
    _check_numbers(file, one)
    return one


def _check_numbers(file: Path, one: Any) -> None:
    """Raise a `DataError` if what a header says of the pixels cannot be, or is not read."""
    spacing = np.array(one.PixelSpacing, float)
    if spacing.shape != (2,) or not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise DataError(
            f"{file}: PixelSpacing should be two positive numbers, got {one.PixelSpacing}; repair or remove it"
        )
    if "HighBit" in one and int(one.HighBit) != (highest := int(one.BitsStored) - 1):
        raise DataError(
            f"{file}: HighBit should be BitsStored - 1, {highest}, got {one.HighBit}; write the pixels into the lowest "
            "bits, or remove it"
        )
    if one.get("RescaleSlope") is not None and float(one.RescaleSlope) == 0:
        raise DataError(f"{file}: RescaleSlope is 0, which makes all values alike; repair or remove it")


def _directions(file: Path, one: Any) -> np.ndarray:
    """Return the directions of rows and columns, (2, 3)."""
    found = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
    if not np.linalg.norm(np.cross(*found)) > _FLAT * np.prod(np.linalg.norm(found, axis=1)):
        raise DataError(
            f"{file}: ImageOrientationPatient = {one.ImageOrientationPatient} cannot be: its directions are zero or "
            "parallel; repair or remove it"
        )
    return found


def _step(path: Path, names: Sequence[str], positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the way from one slice to the next, in millimetres."""
    if len(positions) == 1:
        return np.ones(3)
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if not gaps.min() > 0 or gaps.max() - gaps.min() > _UNEVEN * usual:
        worst = int(np.argmax(np.abs(gaps - usual)))
        raise DataError(
            f"{path}: its slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart: one is missing, or there twice; "
            f"look between {names[worst]} and {names[worst + 1]}, {gaps[worst]:.3g} mm apart"
        )
    return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))


def _check_line(path: Path, names: Sequence[str], positions: np.ndarray, heights: np.ndarray, pixel: float) -> None:
    """Raise a `DataError` if a slice lies beside the straight line of the others, however that is tilted."""
    half = len(positions) // 2
    if half == 0:
        return
    way, up = positions[half:] - positions[:-half], heights[half:] - heights[:-half]
    off = positions - np.median(way / up[:, None], axis=0) * heights[:, None]
    beside = np.linalg.norm(off - np.median(off, axis=0), axis=1)
    worst = int(np.argmax(beside))
    if beside[worst] > pixel:
        raise DataError(
            f"{path}: {names[worst]} lies {beside[worst]:.3g} mm beside the straight line of the slices, more than a "
            f"pixel, {pixel:g} mm; repair its ImagePositionPatient, or remove it"
        )


def _pixels(file: Path, one: Any) -> np.ndarray:
    bits = int(one.BitsAllocated)
    if bits not in (8, 16, 32) or int(one.Rows) * int(one.Columns) * bits // 8 > len(one.PixelData):
        raise DataError(
            f"{file} declares {one.Rows}x{one.Columns} pixels of {bits} bits, but holds {len(one.PixelData):,} bytes"
        )
    if one.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(one.pixel_array, one), np.float32)
    slope, intercept = float(one.get("RescaleSlope") or 1), float(one.get("RescaleIntercept") or 0)
    return scaled(one.pixel_array, slope, intercept)

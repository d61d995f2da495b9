"""Files named on the command line -> arrays that a trained network accepts, read as in its training."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ddcnn.config import Resize
from ddcnn.data.arrays import arranged
from ddcnn.data.description import InputDescription
from ddcnn.data.dicom import is_dicom, read_dicom
from ddcnn.data.files import open_file
from ddcnn.data.images import SUFFIXES, read_sized
from ddcnn.data.nifti import SUFFIXES as NIFTI
from ddcnn.data.nifti import is_nifti, read_nifti
from ddcnn.data.volumes import finished
from ddcnn.data.walk import walk
from ddcnn.errors import DataError

_ARRAYS = frozenset({".npy", ".npz"})
_AHEAD = 64  # files that are read at once


@dataclass(frozen=True)
class Wanted:
    """The images that a run was trained on.

    Attributes
    ----------
    shape
        (C, H, W) or (C, D, H, W).
    kind
        ``"uint8"`` or ``"float32"``.
    resize
        What becomes of files of another size: ``"stretch"``, ``"crop"``, ``"pad"``, or ``"no"``: they are refused.
    window
        The values of volumes that became 0 and 255 in the training.
    resized
        The files that were resized, as they are.
    """

    shape: tuple[int, ...]
    kind: str
    resize: str = "stretch"
    window: tuple[float, float] | None = None
    resized: list[Path] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, data: Mapping[str, Any], *, resize: str | None = None) -> Wanted:
        """Return what ``data.json`` of a run tells; ``resize`` is what was asked for, None: as in the training."""
        known = InputDescription.from_json(data["input"]) if "input" in data else None
        how = resize or (known and known.resize) or "stretch"
        return cls(tuple(data["image_shape"]), data["image_type"], how, known.window if known else None)

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return self.shape[1:]

    @property
    def volumes(self) -> bool:
        """Whether images have a depth."""
        return len(self.size) == 3

    @property
    def note(self) -> str | None:
        """What was done to files, in one line; None: nothing."""
        if not self.resized:
            return None
        count, size = len(self.resized), "x".join(map(str, self.size))
        return f"resized to {size} ({self.resize}): {count:,} file{'' if count == 1 else 's'} of another size"


def find_files(names: Sequence[str], bad: list[str] | None = None, *, volumes: bool = False) -> list[Path]:
    """Return the files, and for each folder all images and arrays in it, at any depth, sorted.

    Where ``volumes`` are wanted, a folder that holds the slices of a DICOM series is one of them, not walked into.

    Why a name cannot be used is added to ``bad``; without it, the first such name is an error: it is neither file nor
    folder, or a folder that holds no image.
    """
    paths: list[Path] = []
    for path in map(Path, names):
        try:
            paths += _found(path, volumes=volumes)
        except DataError as error:
            if bad is None:
                raise
            bad.append(str(error))
    return paths


def _found(path: Path, *, volumes: bool) -> list[Path]:
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist (looked from {Path.cwd()})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; mend this or leave it out") from None
    if not path.is_dir():
        return [path]
    if not volumes:
        found, kinds = walk(path, SUFFIXES | _ARRAYS).files, SUFFIXES | _ARRAYS
    else:
        found, kinds = _volumes(path), _ARRAYS | {*NIFTI}
    if not found:
        what, more = ("volume", ", and no DICOM series") if volumes else ("image", "")
        raise DataError(f"{path} holds no {what} ({', '.join(sorted(kinds))}){more}; give another folder")
    return found


def _volumes(path: Path) -> list[Path]:
    files = walk(path, None).files
    volumes = {file for file in files if is_nifti(file) or file.suffix.lower() in _ARRAYS}
    series = {file.parent for file in files if file not in volumes and file.is_file() and is_dicom(file)}
    return sorted(volumes | series)


def read_batches(
    paths: Sequence[Path], wanted: Wanted, batch_size: int, bad: list[str] | None = None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and images (n, C, *S), n <= batch_size; of an .npz file with many images each has a name.

    Files are read ahead by threads, a few at a time, while what was read before is used; so it is used within
    `ddcnn.data.images.bombs_are_errors`. Why one cannot be used is added to ``bad``; without it, the first such file is
    an error.
    """
    names: list[str] = []
    images: list[np.ndarray] = []
    for found in _all(paths, wanted, min(batch_size, _AHEAD)):
        if isinstance(found, DataError):
            if bad is None:
                raise found
            bad.append(str(found))
            continue
        for name, image in found:
            names.append(name)
            images.append(image)
            if len(images) == batch_size:
                yield names, np.stack(images)
                names, images = [], []
    if images:
        yield names, np.stack(images)


def _all(paths: Sequence[Path], wanted: Wanted, ahead: int) -> Iterator[list[tuple[str, np.ndarray]] | DataError]:
    """Yield what each file holds, or what is wrong with it."""

    def read(path: Path) -> list[tuple[str, np.ndarray]] | DataError:
        try:
            return _read(path, wanted)
        except DataError as error:
            return error

    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # decoding releases the interpreter lock
    waiting: deque[Future[list[tuple[str, np.ndarray]] | DataError]] = deque()
    try:
        for path in paths:
            waiting.append(threads.submit(read, path))
            if len(waiting) > ahead:  # a batch is used while the next one is read
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _read(path: Path, wanted: Wanted) -> list[tuple[str, np.ndarray]]:
    if path.is_dir() or is_nifti(path):
        return [(str(path), _read_volume(path, wanted))]
    if path.suffix.lower() not in _ARRAYS:
        return [(str(path), _read_image(path, wanted))]
    arrays = _load(path)
    if path.suffix.lower() == ".npy":
        return [(str(path), _fitted(path, arrays[""], wanted))]
    if "images" in arrays:
        if not arrays["images"].size or arrays["images"].ndim < 2:
            raise DataError(f"{path}: expected images under the key images, got shape {arrays['images'].shape}")
        return [(f"{path}[{i}]", _fitted(path, image, wanted)) for i, image in enumerate(arrays["images"])]
    if len(arrays) == 1:
        return [(str(path), _fitted(path, next(iter(arrays.values())), wanted))]
    found = ", ".join(arrays) or "none"
    raise DataError(f"{path} should hold one image, or many under the key images; got the keys {found}")


def _read_image(path: Path, wanted: Wanted) -> np.ndarray:
    channels = wanted.shape[0]
    if wanted.volumes or wanted.kind != "uint8" or channels not in (1, 3):
        other = ".nii, .nii.gz, DICOM folders, .npy or .npz files" if wanted.volumes else ".npy or .npz files"
        raise DataError(
            f"{path} is an image file, but the run was trained on {wanted.kind} arrays of shape {wanted.shape}; "
            f"give {other}"
        )
    refused = wanted.resize == "no"
    how = None if refused else cast(Resize, wanted.resize)
    image, size = read_sized(path, None if refused else wanted.size, channels, how)
    if size != wanted.size:
        _tell_size(path, size, wanted)
    return image


def _tell_size(path: Path, size: Sequence[int], wanted: Wanted) -> None:
    """Note that a file had another size, or refuse it."""
    if wanted.resize == "no":
        expected, got = ("x".join(map(str, shape)) for shape in (wanted.size, size))
        axes = "voxels (D x H x W)" if wanted.volumes else "pixels (H x W)"
        raise DataError(f"{path}: expected {expected} {axes} as in training, got {got}; leave --resize no out")
    wanted.resized.append(path)


def _read_volume(path: Path, wanted: Wanted) -> np.ndarray:
    if not wanted.volumes or wanted.shape[0] != 1:
        raise DataError(f"{path} is a volume, but the run was trained on images of shape {wanted.shape}; give these")
    if wanted.kind == "uint8" and wanted.window is None:
        raise DataError(
            f"{path}: the run was trained on uint8 volumes, and does not say which values of a scan became 0 and 255 "
            "(data.window); give .npy or .npz files of uint8"
        )
    read = read_dicom if path.is_dir() else read_nifti
    volume = read(path, None, None)
    if volume.shape[1:] != wanted.size:
        if wanted.resize in ("crop", "pad"):
            raise DataError(f"{path}: --resize {wanted.resize} is for images; volumes are stretched, leave it out")
        _tell_size(path, volume.shape[1:], wanted)
    return finished(path, volume[0], wanted.size, wanted.window)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with open_file(path) as file:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": np.asarray(loaded)}
    except DataError:
        raise
    except Exception as error:  # a damaged file raises anything, from EOFError to zlib.error
        raise DataError(f"{path} cannot be read: {error}; write it with numpy.save or numpy.savez") from None


def _fitted(path: Path, image: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Return the image as (C, *S) of the wanted type; channels may be absent, if there is one, or come last."""
    if image.shape != wanted.shape:
        try:
            image = arranged(image[None], wanted.shape, str(path))[0]
        except DataError:
            raise DataError(
                f"{path}: expected an array of shape {wanted.shape} as in training, got {image.shape}"
            ) from None
    if wanted.kind == "uint8":
        if image.dtype.kind not in "bui" or int(image.min()) < 0 or int(image.max()) > 255:
            raise DataError(f"{path}: expected integers in 0..255 as in training, got {image.dtype} {_range(image)}")
        return np.ascontiguousarray(image, np.uint8)
    if image.dtype.kind in "buif":
        with np.errstate(over="ignore"):  # becomes infinite, which is found below
            single = np.ascontiguousarray(image, np.float32)
        if np.isfinite(single).all():
            return single
    raise DataError(f"{path}: expected finite float32 numbers as in training, got {image.dtype} {_range(image)}")


def _range(image: np.ndarray) -> str:
    return f"in {image.min()}..{image.max()}" if image.dtype.kind in "buif" else ""

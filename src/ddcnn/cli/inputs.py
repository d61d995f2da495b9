"""Files named on the command line -> arrays that a trained network accepts, read as in its training."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import typer

from ddcnn.config import Resize
from ddcnn.data.array_file import ArrayFile
from ddcnn.data.arrays import arranged, fitting
from ddcnn.data.bad_files import BadFiles
from ddcnn.data.description import InputDescription
from ddcnn.data.dicom import is_dicom, read_dicom
from ddcnn.data.images import COMPOSITED, SUFFIXES, read_sized
from ddcnn.data.layouts import axis_order
from ddcnn.data.nifti import SUFFIXES as NIFTI
from ddcnn.data.nifti import is_nifti, read_nifti
from ddcnn.data.npz import told_layout
from ddcnn.data.prefetch import prefetch, readers
from ddcnn.data.volumes import finished
from ddcnn.data.walk import walk
from ddcnn.errors import DataError
from ddcnn.text import printable

_ARRAYS = frozenset({".npy", ".npz"})
_KINDS = {"uint8": "bui", "float32": "buif"}  # of numbers that may be those of the training
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
    known
        What else the run says of them; None: nothing, it was made by version 0.1.
    resized
        The files that were resized, as they are.
    composited
        The image files that were laid on white.
    """

    shape: tuple[int, ...]
    kind: str
    resize: str = "stretch"
    window: tuple[float, float] | None = None
    known: InputDescription | None = None
    resized: list[Path] = field(default_factory=list, compare=False)
    composited: list[Path] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, data: Mapping[str, Any], *, resize: str | None = None) -> Wanted:
        """Return what ``data.json`` of a run tells; ``resize`` is what was asked for, None: as in the training."""
        known = InputDescription.from_json(data["input"]) if "input" in data else None
        how = resize or (known and known.resize) or "stretch"
        return cls(tuple(data["image_shape"]), data["image_type"], how, known.window if known else None, known)

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
        """What was done to files, and to how many, in one line; None: nothing."""
        said = []
        if count := len(self.resized):
            said.append(f"{self._resizing}: {_files(count)} of another size")
        if count := len(self.composited):
            said.append(f"{COMPOSITED}: {_files(count)}")
        return "; ".join(said) or None

    @property
    def note_of_one(self) -> str | None:
        """What was done to the only file, in one line; None: nothing."""
        said = [what for what, files in ((self._resizing, self.resized), (COMPOSITED, self.composited)) if files]
        return "; ".join(said) or None

    @property
    def _resizing(self) -> str:
        return f"resized to {'x'.join(map(str, self.size))} ({self.resize})"

    def afresh(self) -> Wanted:
        """Return the same, as if nothing had been done to files yet."""
        return replace(self, resized=[], composited=[])


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


def holds_several(path: Path) -> bool:
    """Tell whether a file may hold any number of images."""
    return path.suffix.lower() in _ARRAYS


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
        try:
            for name, image in found:
                names.append(name)
                images.append(image)
                if len(images) == batch_size:
                    yield names, np.stack(images)
                    names, images = [], []
        except DataError as error:
            if bad is None:
                raise
            bad.append(str(error))
    if images:
        yield names, np.stack(images)


def end_with(bad: Sequence[str], wanted: Wanted, *, answered: bool) -> None:
    """Say on stderr what was done to files, and which could not be used; the exit code is then 1, or 2 if none could.

    Raises
    ------
    DataError
        Nothing was answered: why, of the first file.
    """
    if wanted.note and answered:
        print(f"note: {wanted.note}", file=sys.stderr)
    for reason in bad if answered else bad[1:]:
        print(f"error: {printable(reason)}", file=sys.stderr)
    if bad and not answered:
        raise DataError(bad[0])
    if bad:
        raise typer.Exit(1)


_Named = Iterable[tuple[str, np.ndarray]]


def _all(paths: Sequence[Path], wanted: Wanted, ahead: int) -> Iterator[_Named]:
    """Yield what each file holds; what is wrong with it is raised when that is looked at."""

    def read(path: Path) -> _Named:
        try:
            return _read(path, wanted)
        except DataError as error:
            return _raising(error)

    return prefetch(read, paths, depth=ahead, threads=readers())  # decoding releases the interpreter lock


def _raising(error: DataError) -> _Named:
    def fail() -> NoReturn:
        raise error

    return (fail() for _ in range(1))


def _read(path: Path, wanted: Wanted) -> _Named:
    if path.is_dir() or is_nifti(path):
        return [(str(path), _read_volume(path, wanted))]
    if path.suffix.lower() not in _ARRAYS:
        return [(str(path), _read_image(path, wanted))]
    return _read_arrays(path, wanted)


def _read_arrays(path: Path, wanted: Wanted) -> _Named:
    """Yield the images of an array file, piece by piece; of one with another shape or type only the header is read."""
    with ArrayFile(path, alone=True) as file:
        key = "images" if "images" in file.arrays else next(iter(file.arrays), "")
        if key != "images" and len(file.arrays) != 1:
            found = ", ".join(file.arrays) or "none"
            raise DataError(f"{path} should hold one image, or many under the key images; got the keys {found}")
        declared = file.arrays[key]
        if key != "images":
            layout = _of_training(wanted, declared.shape)
            _check_declared(path, declared.shape, declared.dtype, wanted, layout)
            yield str(path), _fitted(path, file.read(key, most=declared.nbytes), wanted, layout)
            return
        if not declared.nbytes or len(declared.shape) < 2:
            raise DataError(f"{path}: expected images under the key images, got shape {declared.shape}")
        layout = _layout(file, declared.shape, wanted)
        _check_declared(path, declared.shape[1:], declared.dtype, wanted, layout)
        rows = (image for piece in file.pieces(key) for image in piece)
        for i, image in enumerate(rows):
            yield f"{path}[{i}]", _fitted(path, image, wanted, layout)


def _layout(file: ArrayFile, shape: Sequence[int], wanted: Wanted) -> str | None:
    """Return the layout of the images of a file: as it says, or, where that leaves no doubt, that of the training."""
    if (told := told_layout(file)) is not None:
        return axis_order(str(file.path), shape, told)
    if wanted.known is not None:
        wanted.known.check_told(str(file.path))
    return _of_training(wanted, shape[1:])


def _of_training(wanted: Wanted, shape: Sequence[int]) -> str | None:
    return None if wanted.known is None else fitting(wanted.known.layout, (1, *shape), wanted.shape)


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
    done = BadFiles()
    image, size = read_sized(path, None if refused else wanted.size, channels, how, done)
    if size != wanted.size:
        _tell_size(path, size, wanted)
    if done.done[COMPOSITED]:
        wanted.composited.append(path)
    return _checked(path, image, wanted, dark=True)


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
    return _checked(path, finished(path, volume[0], wanted.size, wanted.window), wanted)


def _check_declared(path: Path, shape: tuple[int, ...], dtype: np.dtype, wanted: Wanted, layout: str | None) -> None:
    """Raise a `DataError` if an image of this shape and type cannot be one that is wanted, whatever is in it."""
    try:
        no_memory = np.broadcast_to(np.zeros((), dtype), (1, *shape))
        arranged(no_memory, wanted.shape, str(path), layout)
    except DataError:
        how = "" if layout is None else f" of layout {layout}"
        raise DataError(f"{path}: expected an array of shape {wanted.shape} as in training, got {shape}{how}") from None
    if dtype.kind not in _KINDS[wanted.kind]:
        expected = "integers in 0..255" if wanted.kind == "uint8" else "finite float32 numbers"
        raise DataError(f"{path}: expected {expected} as in training, got {dtype}")


def _fitted(path: Path, image: np.ndarray, wanted: Wanted, layout: str | None) -> np.ndarray:
    """Return an image that `_check_declared` has let pass as (C, *S) of the wanted type."""
    image = arranged(image[None], wanted.shape, str(path), layout)[0]
    if wanted.kind == "uint8":
        if int(image.min()) < 0 or int(image.max()) > 255:
            raise DataError(f"{path}: expected integers in 0..255 as in training, got {image.dtype} {_range(image)}")
        return _checked(path, np.ascontiguousarray(image, np.uint8), wanted)
    with np.errstate(over="ignore"):  # becomes infinite, which is found below
        single = np.ascontiguousarray(image, np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{path}: expected finite float32 numbers as in training, got {image.dtype} {_range(image)}")
    return _checked(path, single, wanted)


def _checked(path: Path, image: np.ndarray, wanted: Wanted, *, dark: bool = False) -> np.ndarray:
    """Return an image, unless its values are on another scale than those of the training: then this file is named.

    Image files may be however ``dark``: they say themselves what their values mean.
    """
    if wanted.known is not None:
        wanted.known.check_array(image[None], str(path), dark=dark)
    return image


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _range(image: np.ndarray) -> str:
    return f"in {image.min():g}..{image.max():g}"

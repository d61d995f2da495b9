"""Files named on the command line -> arrays that a trained network accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.data import read_image
from ddcnn.data.files import open_file
from ddcnn.data.images import SUFFIXES
from ddcnn.data.walk import walk
from ddcnn.errors import DataError

_ARRAYS = frozenset({".npy", ".npz"})


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
        Whether image files of another size are resized.
    """

    shape: tuple[int, ...]
    kind: str
    resize: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any], *, resize: bool = False) -> Wanted:
        """Return what ``data.json`` of a run tells."""
        return cls(tuple(data["image_shape"]), data["image_type"], resize)


def find_files(names: Sequence[str], bad: list[str] | None = None) -> list[Path]:
    """Return the files, and for each folder all images and arrays in it, at any depth, sorted.

    Why a name cannot be used is added to ``bad``; without it, the first such name is an error: it is neither file nor
    folder, or a folder that holds no image.
    """
    paths: list[Path] = []
    for path in map(Path, names):
        try:
            paths += _found(path)
        except DataError as error:
            if bad is None:
                raise
            bad.append(str(error))
    return paths


def _found(path: Path) -> list[Path]:
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist (looked from {Path.cwd()})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; mend this or leave it out") from None
    found = walk(path, SUFFIXES | _ARRAYS).files if path.is_dir() else [path]
    if not found:
        raise DataError(f"{path} holds no image ({', '.join(sorted(SUFFIXES | _ARRAYS))}); give another folder")
    return found


def read_batches(
    paths: Sequence[Path], wanted: Wanted, batch_size: int, bad: list[str] | None = None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and images (n, C, *S), n <= batch_size; of an .npz file with many images each has a name.

    Why a file cannot be used is added to ``bad``; without it, the first such file is an error.
    """
    names: list[str] = []
    images: list[np.ndarray] = []
    for path in paths:
        try:
            for name, image in _read(path, wanted):
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


def _read(path: Path, wanted: Wanted) -> Iterator[tuple[str, np.ndarray]]:
    if path.suffix.lower() not in _ARRAYS:
        yield str(path), _read_image(path, wanted)
        return
    arrays = _load(path)
    if path.suffix.lower() == ".npy":
        yield str(path), _fitted(path, arrays[""], wanted)
    elif "images" in arrays:
        if not arrays["images"].size or arrays["images"].ndim < 2:
            raise DataError(f"{path}: expected images under the key images, got shape {arrays['images'].shape}")
        for i, image in enumerate(arrays["images"]):
            yield f"{path}[{i}]", _fitted(path, image, wanted)
    elif len(arrays) == 1:
        yield str(path), _fitted(path, next(iter(arrays.values())), wanted)
    else:
        found = ", ".join(arrays) or "none"
        raise DataError(f"{path} should hold one image, or many under the key images; got the keys {found}")


def _read_image(path: Path, wanted: Wanted) -> np.ndarray:
    channels, *size = wanted.shape
    if len(size) != 2 or wanted.kind != "uint8" or channels not in (1, 3):
        raise DataError(
            f"{path} is an image file, but the run was trained on {wanted.kind} arrays of shape {wanted.shape}; "
            "give .npy or .npz files"
        )
    image = read_image(path, (size[0], size[1]) if wanted.resize else None, channels)
    if image.shape != wanted.shape:
        expected, got = ("x".join(map(str, shape)) for shape in (size, image.shape[1:]))
        raise DataError(f"{path}: expected {expected} pixels (H x W) as in training, got {got}; add --resize")
    return image


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
    channels, *size = wanted.shape
    if image.shape != wanted.shape:
        if channels == 1 and image.shape == tuple(size):
            image = image[None]
        elif image.shape == (*size, channels):
            image = np.moveaxis(image, -1, 0)
        else:
            raise DataError(f"{path}: expected an array of shape {wanted.shape} as in training, got {image.shape}")
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

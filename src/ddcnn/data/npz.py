"""Your own arrays: a NumPy ``.npz`` file with images or volumes and labels.

Keys: ``images`` and ``labels``, and if you like ``classes`` (K names), ``layout`` and ``groups``; or those of MedMNIST,
``train_images``, ``train_labels``, ``val_images``, ``val_labels``, ``test_images``, ``test_labels``: the test part is
the official test set, the others are joined (validation images are drawn by ``data.validation``).

How axes are read: `ddcnn.data.layouts`. ``layout`` is a string of the letters N, C, D, H, W in the order of the axes,
for example ``np.array("NCHW")``. ``groups`` (with parts ``train_groups``, ...) says which images belong together, such
as those of a patient: `ddcnn.data.groups`. Other keys are not used, which is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.array_file import ArrayFile
from ddcnn.data.columns import unused
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import digest, source_path
from ddcnn.data.groups import with_groups
from ddcnn.data.image_memory import room
from ddcnn.data.labels import read_labels, texts
from ddcnn.data.layouts import Conversion, axis_order, check_kind, check_range, needs_look
from ddcnn.data.lazy import Images, Lazy
from ddcnn.errors import DataError

_PARTS = ("train", "val", "test")


def read_npz(config: DataConfig) -> Dataset:
    """Read ``npz:PATH``.

    uint8 and float32 images stay what they are; other integers become uint8 if all are in 0..255 and float32 if not;
    float16 and float64 become float32. Labels are integers from 0, (n,) or (n, 1), or strings, also of bytes in UTF-8.
    Nothing is known of symmetries, so no augmentation is allowed by default. Images are converted piece by piece: no
    second copy of them is in memory.

    Raises
    ------
    DataError
        The file is damaged or holds Python objects, a key is missing, or shapes, types or lengths do not fit.
    """
    path = source_path(config)
    with ArrayFile(path) as file:
        pairs = _pairs(file)
        keys = [image_key for image_key, _ in pairs]
        layout = told_layout(file)
        how = "; write the file with one more entry, numpy.savez(..., layout={!r})"
        order = axis_order(str(path), file.arrays[keys[0]].shape, layout, how)
        names = file.read("classes") if "classes" in file.arrays else None
        labels, classes = read_labels(str(path), _joined(path, [file.read(key) for _, key in pairs]), names)
        images = _images(config.source, file, keys, order)
        groups = _groups(path, file, pairs)
        notes = _unused(file, pairs)
        tests = file.arrays["test_images"].shape[0] if keys[-1] == "test_images" else 0
    dataset = Dataset(
        name=config.source,
        images=images,
        labels=torch.from_numpy(labels),
        classes=classes,
        notes=notes,
        layout=None if layout is None else order,
        official_test=torch.arange(len(labels) - tests, len(labels)) if tests else None,
        source={"publisher": "you", "files": f"{path.resolve()} (md5 {digest(path)})", "licence": "not known"},
    )
    return dataset if groups is None else with_groups(dataset, groups)


def told_layout(file: ArrayFile) -> str | None:
    """Return the layout that a file says its images have; None: it does not say."""
    if "layout" not in file.arrays:
        return None
    found = file.read("layout")
    if found.dtype.kind not in "SU" or found.size != 1:
        raise DataError(f"{file.path}: layout should be one string, such as 'NHWC', got {found.dtype} {found.shape}")
    try:
        return texts(found.reshape(1))[0]
    except UnicodeDecodeError:
        raise DataError(f"{file.path}: layout is bytes that are no UTF-8; give a string, such as 'NHWC'") from None


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file, none of Python objects, or raise a `DataError`."""
    with ArrayFile(path) as file:
        size = sum(declared.nbytes for declared in file.arrays.values())
        room().require(str(path), (1,), size)
        return {key: file.read(key, most=size) for key in file.arrays}


def _pairs(file: ArrayFile) -> list[tuple[str, str]]:
    """Return the keys of images and labels, part by part."""
    path, arrays = file.path, file.arrays
    names = [name for name in _PARTS if f"{name}_images" in arrays]
    if "images" in arrays:
        pairs = [("images", "labels")]
    elif "train" in names:
        pairs = [(f"{name}_images", f"{name}_labels") for name in names]
    else:
        found = ", ".join(arrays) or "none"
        raise DataError(
            f"{path} should have the keys images and labels, or train_images, train_labels, ...; got {found}"
        )
    for image_key, label_key in pairs:
        if label_key not in arrays:
            raise DataError(f"{path} has the key {image_key} but not {label_key}; got {', '.join(arrays)}")
        images, labels, first = (arrays[key].shape for key in (image_key, label_key, pairs[0][0]))
        counts = images[:1] or (0,), labels[:1] or (0,)
        if counts[0] != counts[1]:
            raise DataError(f"{path} has {counts[0][0]} {image_key} but {counts[1][0]} {label_key}")
        if images[1:] != first[1:]:
            raise DataError(
                f"{path}: {image_key} and {pairs[0][0]} should have one shape, got {images[1:]} and {first[1:]}"
            )
    return pairs


def _joined(path: Path, parts: Sequence[np.ndarray]) -> np.ndarray:
    if len({(part.ndim, part.dtype.kind in "SU") for part in parts}) > 1:
        kinds = ", ".join(f"{part.dtype} {part.shape}" for part in parts)
        raise DataError(f"{path}: the labels of all parts should be of one kind, got {kinds}")
    return np.concatenate(parts)


def _groups(path: Path, file: ArrayFile, pairs: Sequence[tuple[str, str]]) -> np.ndarray | None:
    """Return the groups of all images; None: they are independent of one another."""
    keys = [key.replace("images", "groups") for key, _ in pairs]
    there = [key for key in keys if key in file.arrays]
    if not there:
        return None
    if len(there) < len(keys):
        missing = next(key for key in keys if key not in there)
        raise DataError(f"{path} has the key {there[0]} but not {missing}; give the groups of all images, or of none")
    return _joined(path, [file.read(key) for key in keys])


def _unused(file: ArrayFile, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return a note on keys that are not used; one that is almost that of groups, classes or layout is refused."""
    optional = [*(key.replace("images", "groups") for key, _ in pairs), "classes", "layout"]
    known = {key for pair in pairs for key in pair} | set(optional)
    others = [key for key in file.arrays if key not in known]
    return unused(str(file.path), "key", others, optional, file.arrays)


def _images(source: str, file: ArrayFile, keys: Sequence[str], order: str) -> Tensor | Images:
    """Return contiguous (n, C, [D,] H, W), uint8 or float32."""
    declared = [file.arrays[key] for key in keys]
    convert = Conversion(order, _dtype(file, keys))
    shape = convert.shape((sum(one.shape[0] for one in declared), *declared[0].shape[1:]))
    item = convert.dtype.itemsize
    if room().leaves_on_disk(int(np.prod(shape, dtype=np.float64)) * item):
        maps = [file.mapped(key) for key in keys]
        if not any(one is None for one in maps):
            for _ in _pieces(source, file, keys):  # whose checksums are compared at the end
                pass
            return _mapped([one for one in maps if one is not None], shape, convert)
    whole = sum(one.nbytes for one in declared if one.fortran)  # these cannot be read in pieces
    room().require(source, shape, item, besides=whole)
    images = np.empty(shape, convert.dtype)
    for start, piece in _pieces(source, file, keys):
        images[start : start + len(piece)] = convert(piece)
    return torch.from_numpy(images)


def _pieces(source: str, file: ArrayFile, keys: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the images of all parts in pieces, each with the number of its first image; float32 can hold them."""
    start = 0
    for key in keys:
        for piece in file.pieces(key):
            check_range(source, piece, start)
            yield start, piece
            start += len(piece)


def _mapped(maps: Sequence[np.ndarray], shape: tuple[int, ...], convert: Conversion) -> Lazy:
    ends = np.cumsum([len(one) for one in maps])

    def image(i: int) -> Tensor:
        part = int(np.searchsorted(ends, i, side="right"))
        row = i - (int(ends[part - 1]) if part else 0)
        return torch.from_numpy(np.array(convert(maps[part][row : row + 1])[0], order="C"))

    return Lazy(image, shape, torch.uint8 if convert.dtype == np.uint8 else torch.float32)


def _dtype(file: ArrayFile, keys: Sequence[str]) -> np.dtype:
    """Return uint8 or float32, whichever holds the images of all parts."""
    kinds = [file.arrays[key].dtype for key in keys]
    for kind in kinds:
        check_kind(str(file.path), kind)
    if any(kind.kind == "f" for kind in kinds):
        return np.dtype(np.float32)
    wide = [key for key, kind in zip(keys, kinds, strict=True) if needs_look(kind)]
    small = all(piece.min() >= 0 and piece.max() <= 255 for key in wide for piece in file.pieces(key) if piece.size)
    empty = bool(wide) and all(0 in file.arrays[key].shape for key in keys)
    return np.dtype(np.uint8 if small and not empty else np.float32)

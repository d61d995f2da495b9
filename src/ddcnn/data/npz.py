"""Your own arrays: a NumPy ``.npz`` file with images or volumes and labels.

Keys: ``images`` and ``labels``, and if you like ``classes`` (K names) and ``layout``; or those of MedMNIST,
``train_images``, ``train_labels``, ``val_images``, ``val_labels``, ``test_images``, ``test_labels``: the test part is
the official test set, the others are joined (validation images are drawn by ``data.validation``).

========  ==========================================================================
axes      read as, unless ``layout`` says otherwise
========  ==========================================================================
3         ``NHW``: greyscale images
4         ``NHWC`` if the last axis has 1, 3 or 4 entries, else ``NDHW``: volumes
5         ``NDHWC``: volumes with channels
========  ==========================================================================

``layout`` is a string of the letters N, C, D, H, W in the order of the axes, for example ``np.array("NCHW")``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import digest, source_path
from ddcnn.errors import DataError

_PARTS = ("train", "val", "test")
_LAYOUTS = ("HW", "CHW", "DHW", "CDHW")
_MAX_BYTES = 2**36


def read_npz(config: DataConfig) -> Dataset:
    """Read ``npz:PATH``.

    uint8 and float32 images stay what they are; other integers become uint8 if all are in 0..255 and float32 if not;
    float16 and float64 become float32. Labels are integers from 0, (n,) or (n, 1), or strings. Nothing is known of
    symmetries, so no augmentation is allowed by default.

    Raises
    ------
    DataError
        The file is damaged or holds Python objects, a key is missing, or shapes, types or lengths do not fit.
    """
    path = source_path(config)
    arrays = load_arrays(path)
    images, labels, tests = _parts(path, arrays)
    labels, classes = read_labels(path, labels, arrays.get("classes"))
    return Dataset(
        name=config.source,
        images=torch.from_numpy(_images(path, images, arrays.get("layout"))),
        labels=torch.from_numpy(labels),
        classes=classes,
        official_test=torch.arange(len(labels) - tests, len(labels)) if tests else None,
        source={"publisher": "you", "files": f"{path.resolve()} (md5 {digest(path)})", "licence": "not known"},
    )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file, none of Python objects, or raise a `DataError`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file, or it is truncated; write it with numpy.savez")
    _check_declared(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # a damaged archive raises anything, from zlib.error to SyntaxError
        hint = "; arrays of Python objects are not read, use a numeric or string type" if "pickle" in str(error) else ""
        raise DataError(f"{path} cannot be read: {error}{hint}") from None


def _check_declared(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # a damaged archive raises anything
        raise DataError(f"{path} cannot be read: {error}") from None
    if declared > _MAX_BYTES:
        raise DataError(
            f"{path} declares {declared:,} bytes, more than the {_MAX_BYTES:,} that are read; make it smaller"
        )


def _parts(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return images, labels and how many at the end are the official test set."""
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
        counts = [arrays[key].shape[0] if arrays[key].ndim else 0 for key in (image_key, label_key)]
        if counts[0] != counts[1]:
            raise DataError(f"{path} has {counts[0]} {image_key} but {counts[1]} {label_key}")
        if arrays[image_key].shape[1:] != arrays[pairs[0][0]].shape[1:]:
            raise DataError(
                f"{path}: {image_key} and {pairs[0][0]} should have one shape, got {arrays[image_key].shape[1:]} and "
                f"{arrays[pairs[0][0]].shape[1:]}"
            )
        if not arrays[image_key].ndim:
            raise DataError(f"{path}: {image_key} should be an array of images, got a single number")
    images, labels = (np.concatenate([arrays[pair[i]] for pair in pairs]) for i in (0, 1))
    return images, labels, len(arrays["test_images"]) if pairs[-1][0] == "test_images" else 0


def _images(path: Path, images: np.ndarray, layout: np.ndarray | None) -> np.ndarray:
    """Return contiguous (n, C, [D,] H, W), uint8 or float32."""
    order = _default_layout(path, images) if layout is None else str(layout).upper()
    if layout is not None and (order[:1] != "N" or "".join(sorted(order[1:])) not in _LAYOUTS):
        raise DataError(f"{path}: layout should be N and then H, W and possibly C and D, got {order!r}")
    if len(order) != images.ndim:
        raise DataError(f"{path}: layout {order} has {len(order)} axes, but the images have shape {images.shape}")
    images = images.transpose([order.index(axis) for axis in "NCDHW" if axis in order])
    images = images if "C" in order else images[:, None]
    if images.dtype.kind in "bui" and images.dtype != np.uint8:
        small = images.size > 0 and images.min() >= 0 and images.max() <= 255
        images = images.astype(np.uint8 if small else np.float32)
    elif images.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is found at the door for all sources
            images = images.astype(np.float32, copy=False)
    elif images.dtype != np.uint8:
        raise DataError(f"{path}: images should be numbers, got {images.dtype}")
    return np.ascontiguousarray(images)


def _default_layout(path: Path, images: np.ndarray) -> str:
    if images.ndim not in (3, 4, 5):
        raise DataError(f"{path}: images should have shape (n, H, W), (n, H, W, C) or (n, D, H, W), got {images.shape}")
    four = "NHWC" if images.shape[-1] in (1, 3, 4) else "NDHW"
    return {3: "NHW", 4: four, 5: "NDHWC"}[images.ndim]


def read_labels(path: Path, labels: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels (n,) in 0..K-1 and the K class names; ``classes`` are the names, if they are known."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{path}: labels should have shape (n,) or (n, 1), got {labels.shape}; one class per image")
    names = None if classes is None else tuple(str(name) for name in np.atleast_1d(classes))
    if labels.dtype.kind == "U":
        names = names or tuple(np.unique(labels).tolist())
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise DataError(f"{path}: the label {unknown[0]!r} is not one of the classes {', '.join(names)}")
        return np.array([names.index(label) for label in labels.tolist()], dtype=np.int64), names
    if labels.dtype.kind not in "bui":
        raise DataError(f"{path}: labels should be integers from 0 or strings, got {labels.dtype}; use astype(int)")
    labels = labels.astype(np.int64)
    return labels, names or tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))

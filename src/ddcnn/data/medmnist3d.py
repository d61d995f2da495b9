"""MedMNIST3D (Yang et al., Scientific Data 10, 2023): the published ``.npz`` files, with their own split."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import digest, source_path
from ddcnn.data.labels import read_labels
from ddcnn.data.npz import load_arrays
from ddcnn.errors import DataError

_PARTS = ("train", "val", "test")
_KEYS = tuple(f"{part}_{what}" for part in _PARTS for what in ("images", "labels"))
CLASSES = {
    "organmnist3d": (
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
        "lung-left", "spleen", "pancreas",
    ),
    "nodulemnist3d": ("benign", "malignant"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
}  # fmt: skip
"""What the labels of the published sets mean, by the name of the file."""


def read_medmnist3d(config: DataConfig) -> Dataset:
    """Read ``medmnist3d:PATH``, one of the files such as ``adrenalmnist3d.npz`` or ``adrenalmnist3d_64.npz``.

    The published parts train, validate and test, unless ``data.validation`` asks for another validation part, which is
    then drawn from the first two. Files of another name are read as well; their classes are called 0, 1, ... Nothing
    is known of symmetries, so no augmentation is allowed by default.

    Raises
    ------
    DataError
        The file is damaged, an array is missing, or is not what is published.
    """
    path = source_path(config)
    arrays = load_arrays(path)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise DataError(
            f"{path} should have the keys {', '.join(_KEYS)}, but {', '.join(missing)} is missing; other files are "
            f"read as npz:{path}"
        )
    for part in _PARTS:
        _check(path, part, arrays)
    counts = list(accumulate(len(arrays[f"{part}_labels"]) for part in _PARTS))
    images, labels = (np.concatenate([arrays[f"{part}_{what}"] for part in _PARTS]) for what in ("images", "labels"))
    numbers, classes = read_labels(str(path), labels, _names(path))
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images[:, None]),
        labels=torch.from_numpy(numbers),
        classes=classes,
        official_validation=torch.arange(counts[0], counts[1]),
        official_test=torch.arange(counts[1], counts[2]),
        source={
            "publisher": "MedMNIST v2 (Yang, Shi, Wei, Liu, Zhao, Ke, Pfister, Ni)",
            "url": "https://medmnist.com",
            "files": f"{path.resolve()} (md5 {digest(path)})",
            "licence": "CC BY 4.0",
        },
    )


def _check(path: Path, part: str, arrays: dict[str, np.ndarray]) -> None:
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise DataError(
            f"{path}: {part}_images should be uint8 volumes (n, D, H, W), got {images.dtype} {images.shape}; other "
            f"files are read as npz:{path}"
        )
    if images.shape[1:] != arrays["train_images"].shape[1:]:
        sizes = f"{images.shape[1:]} and {arrays['train_images'].shape[1:]}"
        raise DataError(f"{path}: {part}_images and train_images should have one size, got {sizes}")
    if labels.shape != (len(images), 1) or labels.dtype.kind not in "ui":
        expected = f"integers of shape {(len(images), 1)}"
        raise DataError(f"{path}: {part}_labels should be {expected}, got {labels.dtype} {labels.shape}")


def _names(path: Path) -> np.ndarray | None:
    name = re.sub(r"_\d+$", "", path.stem.lower())
    return np.array(CLASSES[name]) if name in CLASSES else None

"""Your own images: one folder per class, or ``train/`` and ``test/``, each with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.bad_files import BadFiles
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import image_size, source_path
from ddcnn.data.images import SUFFIXES, read_images
from ddcnn.errors import DataError


def read_folder(config: DataConfig) -> Dataset:
    """Read the images of ``folder:PATH``; the names of the folders are the classes, in alphabetical order.

    Images are found at any depth in the folder of their class; hidden files, and files that are not named like images,
    are left out. With ``train/`` and ``test/``, the latter is the official test set. All images have one size, or
    ``data.image_size`` gives the size to resize them to. One channel if all are greyscale, else three. Nothing is
    known of symmetries, so no augmentation is allowed by default. ``data.on_bad_file`` says what to do about files that
    cannot be read.

    Raises
    ------
    DataError
        No or empty class folders, images of different size, or an image that cannot be read.
    """
    root = source_path(config)
    if not root.is_dir():
        raise DataError(f"{config.source}: {root} is a file, not a folder with one folder per class")
    parts = _parts(root)
    classes = tuple(sorted(_folders(parts[0])))
    labelled = [(path, label) for part in parts for path, label in _labelled(part, classes)]
    tests = len(_labelled(parts[1], classes)) if len(parts) == 2 else 0
    paths = [path for path, _ in labelled]
    bad = BadFiles(config)
    images, kept = read_images(paths, image_size(config), bad)
    labels = np.array([label for _, label in labelled], dtype=np.int64)
    tested = np.flatnonzero(kept >= len(paths) - tests)
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels[kept]),
        classes=classes,
        official_test=torch.from_numpy(tested) if tests else None,
        bad_files=tuple(bad.found),
        source={"publisher": "you", "files": f"{len(kept)} images in {root.resolve()}", "licence": "not known"},
    )


def _parts(root: Path) -> list[Path]:
    """Return the folders that hold class folders: the root, or train and test."""
    names = set(_folders(root))
    if not {"train", "test"} <= names:
        return [root]
    others = sorted(names - {"train", "test"})
    if others:
        raise DataError(
            f"{root} should hold train/ and test/ only, but there is also {', '.join(others)}; move its images to "
            "train/ (validation images are drawn from there, see data.validation)"
        )
    return [root / "train", root / "test"]


def _labelled(part: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    names = _folders(part)
    if not names:
        loose = len(_images(part))
        raise DataError(f"{part} should hold one folder per class, got none and {loose} images; sort them into folders")
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise DataError(f"{part / unknown[0]} is a class without training images; add train/{unknown[0]} or remove it")
    labelled = []
    for name in names:
        images = _images(part / name)
        if not images:
            raise DataError(
                f"{part / name} holds no image ({', '.join(sorted(SUFFIXES))}); add some or remove the folder"
            )
        labelled += [(path, classes.index(name)) for path in images]
    return labelled


def _folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )

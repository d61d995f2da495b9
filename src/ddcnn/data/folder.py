"""Your own images: one folder per class; or ``train/``, ``val/`` and ``test/``, each with one folder per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.bad_files import BadFiles
from ddcnn.data.columns import part_named
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import image_size, source_path
from ddcnn.data.groups import with_groups
from ddcnn.data.images import SUFFIXES, read_or_leave_images
from ddcnn.data.labels import check_classes
from ddcnn.data.photos import augmentation_of, notes_of
from ddcnn.data.walk import Found, listed, subfolders, walk
from ddcnn.errors import DataError


def read_folder(config: DataConfig) -> Dataset:
    """Read the images of ``folder:PATH``; the names of the folders are the classes, in alphabetical order.

    Images are found at any depth in the folder of their class, through links as well; hidden files, folders of
    operating systems, and files that are not named like images are passed over and counted. Folders named ``train``,
    ``val`` and ``test``, or alike (``Training``, ``valid``, ``test_set``), are the official parts; there need not be
    all three. All images have one size, or ``data.image_size`` gives the size to resize them to. One channel if all are
    greyscale, else three; then they are taken for photographs (`ddcnn.data.photos`), else there is no augmentation.
    ``data.on_bad_file`` says what to do about files that cannot be read. ``data.group_pattern`` says which belong
    together, by their paths.

    Raises
    ------
    DataError
        No or empty class folders, folders that look like parts but are not named so, images of different size, or an
        image that cannot be read.
    """
    root = source_path(config)
    if not root.is_dir():
        raise DataError(f"{config.source}: {root} is a file, not a folder with one folder per class")
    size, everything = image_size(config), Found()
    parts = _parts(root, everything)
    labelled: list[tuple[str, Path, int]] = []
    classes: tuple[str, ...] = ()
    for part, folder in parts.items():
        names = _class_names(folder, everything)
        classes = classes or names
        if unknown := sorted(set(names) - set(classes)):
            first = parts["train"]
            raise DataError(
                f"{folder / unknown[0]} is a class without training images; add {first.name}/{unknown[0]} or remove it"
            )
        for name in names:
            label = classes.index(name)
            labelled += [(part, path, label) for path in _images(folder / name, everything)]
    if len(parts) == 1:
        _check_no_parts(root, classes)
    check_classes(config.source, classes)
    bad = BadFiles(config)
    images, kept = read_or_leave_images([path for _, path, _ in labelled], size, bad, config.source, config.resize)
    labelled = [labelled[i] for i in kept]
    groups = _groups(config, root, [path for _, path, _ in labelled])
    dataset = Dataset(
        name=config.source,
        images=images,
        labels=torch.tensor([label for _, _, label in labelled]),
        classes=classes,
        files=tuple(path.relative_to(root).as_posix() for _, path, _ in labelled),
        official_test=_indices(labelled, "test"),
        official_validation=_indices(labelled, "validation"),
        bad_files=tuple(bad.found),
        notes=(*bad.notes(), *everything.notes(), *notes_of(images.shape)),
        **augmentation_of(images.shape),
        source={"publisher": "you", "files": f"{len(kept)} images in {root.resolve()}", "licence": "not known"},
    )
    return dataset if groups is None else with_groups(dataset, groups)


def _groups(config: DataConfig, root: Path, paths: Sequence[Path]) -> np.ndarray | None:
    """Return the group of each image by its path; None where nothing is said of it."""
    if config.group_pattern is None:
        return None
    pattern, names = re.compile(config.group_pattern), []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if (found := pattern.search(name)) is None:
            raise DataError(
                f"data.group_pattern = {config.group_pattern!r} does not match {name!r}; it should match all"
            )
        group = (found[1] or "") if pattern.groups else found[0]
        if not group.strip():
            raise DataError(
                f"data.group_pattern = {config.group_pattern!r} finds an empty group in {name!r}; all should have one"
            )
        names.append(group)
    return np.array(names)


def _parts(root: Path, everything: Found) -> dict[str, Path]:
    """Return the folders that hold class folders, those of the training first: the root, or train, val and test."""
    names, beside = subfolders(root)
    parts: dict[str, Path] = {}
    others = []
    for name in names:
        part = part_named(name)
        if part is None:
            others.append(name)
        elif part in parts:
            raise DataError(f"{root} has two folders for {part}, {parts[part].name} and {name}; put them into one")
        else:
            parts[part] = root / name
    if "train" not in parts or len(parts) < 2:
        return {"train": root}
    everything.add(beside)
    if others:
        raise DataError(
            f"{root} should hold {', '.join(f'{path.name}/' for path in parts.values())} only, but there is also "
            f"{', '.join(others)}; move its images to {parts['train'].name}/"
        )
    return {part: parts[part] for part in ("train", "validation", "test") if part in parts}


def _class_names(folder: Path, everything: Found) -> tuple[str, ...]:
    names, beside = subfolders(folder)
    everything.add(beside)
    if not names:
        loose = sum(beside.others[suffix] for suffix in SUFFIXES)
        raise DataError(
            f"{folder} should hold one folder per class, got none and {loose} images; sort them into folders"
        )
    return tuple(names)


def _images(folder: Path, everything: Found) -> list[Path]:
    found = walk(folder, SUFFIXES)
    everything.add(found)
    if not found.files:
        holds = f"; it holds {listed(found.others)}" if found.others else ""
        if {".nii", ".gz", ".dcm"} & {*found.others}:
            holds += ": volumes are read by csv:PATH, a table with the columns file and label"
        raise DataError(
            f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}){holds}; add some or remove the folder"
        )
    return found.files


def _check_no_parts(root: Path, classes: tuple[str, ...]) -> None:
    """Refuse folders that look like parts of a data set: no images in them, and all with the same folders."""
    inside = [subfolders(root / name) for name in classes]
    first = inside[0][0]
    alike = bool(first) and all(names == first and not _loose(beside) for names, beside in inside)
    if not alike or (len(classes) > 1 and len(first) < 2):
        return
    there = f"{', '.join(classes[:3])} in {root} {'hold' if len(classes) > 1 else 'holds'}"
    if len(classes) == 1:
        raise DataError(
            f"{there} {', '.join(first[:5])} and no images; if those are the classes, give {root / classes[0]}"
        )
    raise DataError(
        f"{there} the same folders, {', '.join(first[:5])}, and no images: if they are parts of the data, name them "
        "train, val and test; if they are classes, move their images up into them"
    )


def _loose(beside: Found) -> bool:
    return any(beside.others[suffix] for suffix in SUFFIXES)


def _indices(labelled: list[tuple[str, Path, int]], part: str) -> Tensor | None:
    found = [i for i, (one, _, _) in enumerate(labelled) if one == part]
    return torch.tensor(found) if found else None

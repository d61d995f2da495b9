"""MosMedData (Morozov et al. 2020): 1,110 chest CT scans, in folders CT-0 ... CT-4 by how much of the lung is ill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.bad_files import BadFile, BadFiles, read_all
from ddcnn.data.cached import Arrays, cached, key_of
from ddcnn.data.csv_file import group_numbers
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import search_folders, volume_size
from ddcnn.data.nifti import is_nifti, read_nifti
from ddcnn.data.volumes import ORIENTATION
from ddcnn.errors import DataError

FOLDERS = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
CLASSES = {"CT-0": ("CT-0",), "CT-2/3": ("CT-2", "CT-3")}
"""Without findings against a quarter to three quarters of the lung, as in the Keras CT example."""
SIZE = (128, 128, 64)
WINDOW = (-1000.0, 400.0)
_VERSION = "1"  # of what is cached: changes with the reader


def read_mosmed(config: DataConfig) -> Dataset:
    """Read the scans of the classes as (n, 1, 128, 128, 64) uint8: rows, columns, slices.

    The scans are looked for in ``data.directory`` as published, ``studies/CT-0/*.nii.gz`` ..., or without
    ``studies/``. Values are clipped to -1000..400 Hounsfield units (``data.window``), scaled to 0..255, turned to one
    orientation and resized (``data.image_size``); the result is kept in the cache. ``data.classes`` says which folders
    make which class. Scans may be mirrored left to right, and rotated by up to 20 degrees in the plane of the slices
    as in the Keras CT example.

    Raises
    ------
    DataError
        The folders are not found, hold no scans, or a scan cannot be read.
    """
    groups = config.classes or CLASSES
    numbers = group_numbers(groups)
    unknown = sorted(set(numbers) - set(FOLDERS))
    if unknown:
        raise DataError(f"data.classes names {unknown[0]!r}, but the folders of mosmed are {', '.join(FOLDERS)}")
    root = _root(config)
    paths = [path for folder in numbers for path in _scans(root / folder)]
    size, window = volume_size(config, SIZE), config.window or WINDOW
    assert size is not None
    images, kept, bad = _prepared(root, paths, size, window, config)
    labels = [numbers[paths[i].parent.name] for i in kept]
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images),
        labels=torch.tensor(labels),
        classes=tuple(groups),
        flip_axes=(1,),
        rotation=20.0,
        plane=(0, 1),
        bad_files=bad,
        window=window,
        label_groups=groups,
        resized=True,
        source={
            "publisher": "Center for Diagnostics and Telemedicine, Moscow (Morozov et al., arXiv 2005.06465)",
            "url": "https://mosmed.ai/datasets/covid19_1110",
            "files": f"{len(labels)} scans in {root.resolve()}",
            "prepared": f"{window[0]:g}..{window[1]:g} HU, axes {ORIENTATION}, resized to {'x'.join(map(str, size))}",
            "licence": "CC BY-NC-ND 3.0",
        },
    )


def _root(config: DataConfig) -> Path:
    candidates = [
        found for folder in search_folders(config) for found in (folder / "studies", folder, folder / "mosmed")
    ]
    for folder in candidates:
        if any((folder / name).is_dir() for name in FOLDERS):
            return folder
    where = ", ".join(map(str, search_folders(config)))
    raise DataError(
        f"mosmed: no folders CT-0 ... CT-4 in {where}; get MosMedData (COVID19_1110) from "
        "https://mosmed.ai/datasets/covid19_1110 and give its folder as --data-dir"
    )


def _scans(folder: Path) -> list[Path]:
    scans = sorted(path for path in folder.glob("[!.]*") if is_nifti(path)) if folder.is_dir() else []
    if not scans:
        raise DataError(f"{folder} holds no scan (.nii, .nii.gz); complete the data, or leave it out of data.classes")
    return scans


def _prepared(
    root: Path, paths: Sequence[Path], size: tuple[int, int, int], window: tuple[float, float], config: DataConfig
) -> tuple[np.ndarray, np.ndarray, tuple[BadFile, ...]]:
    """Return volumes, which of the paths they are, and the files left out: kept if nothing has changed."""
    bad = BadFiles(config)

    def make() -> Arrays:
        images, numbers = read_all(paths, lambda path: read_nifti(path, size, window), bad)
        left_out = json.dumps([[one.file, one.reason] for one in bad.found])
        return {"images": images, "kept": numbers, "bad": np.array(left_out)}

    def fits(arrays: Arrays) -> bool:
        images, numbers, left_out = arrays["images"], arrays["kept"], _left_out(arrays)
        if images.dtype != np.uint8 or images.shape != (len(numbers), 1, *size) or numbers.dtype != np.int64:
            return False
        return len(numbers) + len(left_out) == len(paths) and not (bad.stop and left_out)

    key = key_of([(str(path.relative_to(root)), path) for path in paths], _VERSION, ORIENTATION, repr((size, window)))
    arrays = cached(f"mosmed/{key}.npz", "the resized scans", fits, make)
    return arrays["images"], arrays["kept"], _left_out(arrays)


def _left_out(arrays: Arrays) -> tuple[BadFile, ...]:
    return tuple(BadFile(*map(str, one)) for one in json.loads(str(arrays["bad"])))

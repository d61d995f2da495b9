"""What is in the folder of a store before it is written: nothing, a part of the same store, or one to be replaced."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor

from ddcnn.data.content import BYTES, digest_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.store.blocks import image_of, sum_of_blocks
from ddcnn.data.store.layout import ROOT, SINCE_2, Layout, is_own
from ddcnn.errors import DataError
from ddcnn.folders import entries, move_aside

LOCK = ".lock"
_ASIDE = ".replaced-"  # and a number: the store that was here before, until this one is complete
_ARRAYS = r"(subdomains(/\d+)?|labels|moments|content|sha256|official_test|official_validation|groups)"
_OWN = re.compile(rf"{LOCK}|{_ASIDE}\d+/.*|{ROOT}|{_ARRAYS}/({ROOT}|c/[\d/]+)|(.*/)?\.[^/]+\.[0-9a-f]{{8}}")


def clear(path: Path, layout: Layout, dataset: Dataset, *, force: bool) -> Layout:
    """Move an earlier store aside, if there is one that is not gone on with; its description is moved last.

    Returns
    -------
    layout
        Of the store that is to be written: of version 1 if it was begun so.
    """
    if check_free(path, layout, force=force, dataset=dataset):
        found = [p for p in entries(path) if p.name != LOCK and not p.name.startswith(_ASIDE)]
        aside = next(into for n in itertools.count(1) if not (into := path / f"{_ASIDE}{n}").exists())
        move_aside(sorted(found, key=lambda p: p.name == ROOT), path, aside)
    return _of_version(layout, Layout.read(path).version) if (path / ROOT).is_file() else layout


def check_free(path: Path, layout: Layout, *, force: bool, dataset: Dataset | None = None) -> bool:
    """Tell whether an earlier store is to be replaced, not gone on with; raise a `DataError` if it may not be.

    With ``dataset``, the images that are there are compared as well.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        raise DataError(f"{path} exists and is not a store; choose another DEST")
    if all(entry.name == LOCK or entry.name.startswith(_ASIDE) for entry in entries(path)):
        return False
    if not is_own(path):
        if (path / ROOT).is_file() and not force:
            Layout.read(path)  # says what is wrong with it
        raise DataError(f"{path} exists and is not a store of ddcnn that is whole; choose another DEST, or remove it")
    try:
        found = Layout.read(path)
    except DataError:  # of another version
        if not force:
            raise
    else:
        older = force and not found.has_content  # is not gone on with, but made anew
        same = _same(found) == _same(layout, found.version) and not older
        if same and (dataset is None or not _holds_others(path, found, dataset)):
            return False
    if not force:
        raise DataError(
            f"{path} is a store of other images or of another grid; choose another DEST, or --force to replace it"
        )
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if (entry.is_symlink() or not entry.is_dir()) and not _OWN.fullmatch(name):
            raise DataError(f"{entry} is not of the store in {path} and is not replaced; move it elsewhere first")
    return True


def replaced(path: Path) -> list[Path]:
    """Return the folders of stores that have been moved aside."""
    return sorted(path.glob(f"{_ASIDE}*"))


def remove_replaced(path: Path) -> None:
    """Remove what has been moved aside."""
    for before in replaced(path):
        shutil.rmtree(before)


def _holds_others(path: Path, layout: Layout, dataset: Dataset) -> bool:
    """Tell whether blocks that are there are of other images; of images that are not in memory, one of each is read."""
    if not layout.has_content:
        return False  # not known
    if layout.complete and sum_of_blocks(path, layout, "content") != layout.sha256["content"]:
        return False  # damaged blocks are written again
    file, size = layout.written()["content"]
    for b in range(layout.blocks):
        place = path / file.format(b=b)
        if place.is_file() and place.stat().st_size == size:
            known = np.frombuffer(place.read_bytes(), np.uint8).reshape(-1, BYTES)
            samples = layout.block(b) if isinstance(dataset.images, Tensor) else layout.block(b)[:1]
            if any((digest_of(image_of(dataset, i)) != known[n]).any() for n, i in enumerate(samples)):
                return True
    return False


def _same(layout: Layout, version: int | None = None) -> Layout:
    """Return what two layouts share if one can go on where the other ended; what was passed over may differ."""
    layout = _of_version(layout, version or layout.version)
    sums = {name: value for name, value in layout.sha256.items() if name not in layout.written()}
    told = {"sha256": sums, "complete": False, "provenance": {}, "notes": (), "bad_files": ()}
    told |= {"layout": None, "label_kind": None}  # older stores do not say them; the pixels and the labels do
    return layout.model_copy(update=told)


def _of_version(layout: Layout, version: int) -> Layout:
    defaults = {name: Layout.model_fields[name].default for name in SINCE_2}
    return layout.model_copy(update={"version": version} | (defaults if version == 1 else {}))

"""Write a data set as a store: in parallel, with bounded memory, resumable at any moment."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddcnn.atomic import write_atomic
from ddcnn.config import DataConfig
from ddcnn.data.content import BYTES, digest_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import named_paths
from ddcnn.data.lazy import Images
from ddcnn.data.moments import moments
from ddcnn.data.store.layout import MOST_JSON, ROOT, SINCE_2, Layout, is_own, to_json
from ddcnn.data.store.shard import DamagedError, Shard, compress, join, require_codecs
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError
from ddcnn.folders import FolderLock, entries, is_within, move_aside

_LOCK = ".lock"
_ASIDE = ".replaced-"  # and a number: the store that was here before, until this one is complete
_ARRAYS = r"(subdomains(/\d+)?|labels|moments|content|sha256|official_test|official_validation|groups)"
_OWN = re.compile(rf"{_LOCK}|{_ASIDE}\d+/.*|{ROOT}|{_ARRAYS}/({ROOT}|c/[\d/]+)|(.*/)?\.[^/]+\.[0-9a-f]{{8}}")

_BLOCK = 2**25  # bytes of pixels: what a thread holds, compressed, until it writes
_MOST_SAMPLES = 4096
_MOST_BAD_FILES = 1_000  # that a store names; the others are counted

Advance = Callable[[int, int], None]


def write_store(
    dataset: Dataset,
    path: Path,
    grid: Grid,
    *,
    provenance: dict[str, Any] | None = None,
    workers: int | None = None,
    force: bool = False,
    advance: Advance | None = None,
) -> Layout:
    """Write a data set as a store, or what an earlier, interrupted call with the same data and grid left out.

    Memory is bounded, whatever the size of a data set whose images are `ddcnn.data.lazy.Images`: per thread, one image
    and 32 MiB. A store that is complete and whole is left as it is, one of version 1 as well unless ``force`` is given.

    Parameters
    ----------
    dataset
        The images; a `DataError` names the first one that holds NaN or infinity.
    path
        Folder of the store.
    grid
        Its subdomains have an array each, which also holds their overlap.
    provenance
        How the store is made: anything that JSON can hold.
    workers
        Threads; None takes one per core, at most 8.
    force
        Replace another store that is there. It is known by a description that is whole, and no other file may be
        in its folder. It is moved aside within the folder, and removed when the new one is complete.
    advance
        Called with the number of samples done and of all, from any thread.

    Raises
    ------
    DataError
        Something else is in the way, another process writes there, the images cannot be used or stored.
    """
    require_codecs()
    if _utf8(str(path)) != str(path):
        raise DataError(f"the name {path} is not UTF-8; choose another DEST")
    layout = _plan(dataset, grid, provenance or {})
    lock = FolderLock(path / _LOCK)
    try:
        _check_free(path, layout, force=force)
        path.mkdir(parents=True, exist_ok=True)
        if not lock.acquire():
            raise DataError(f"{path} is being written by another process; wait for its end, or choose another DEST")
        layout = _clear(path, layout, dataset, force=force)
        writer = _Writer(dataset, path, layout, advance)
        writer.start()
        writer.blocks(workers or min(8, os.cpu_count() or 1))
        layout = writer.finish()
        for before in path.glob(f"{_ASIDE}*"):
            shutil.rmtree(before)
        return layout
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; mend this and run the same command again to go on"
        ) from None
    finally:
        lock.remove()


def check_dest(path: Path, config: DataConfig) -> None:
    """Make sure that a store is not written over the images that it is made from, or among them.

    Raises
    ------
    DataError
        ``path`` is the file or folder of the source, lies in it, or holds it; or it holds ``data.directory``.
    """
    source = Path(config.source.partition(":")[2]).expanduser()
    for one in named_paths(config):
        if is_within(one, path) or (one == source and is_within(path, one)):
            raise DataError(f"{path} and {one}, from which it would be made, should lie apart; choose another DEST")


def _plan(dataset: Dataset, grid: Grid, provenance: dict[str, Any]) -> Layout:
    n, *shape = dataset.images.shape
    size = math.prod(shape) * dataset.images.dtype.itemsize
    grid.subdomains(shape[1:])  # a grid that does not fit is refused here
    official = _official(dataset)
    if dataset.weights is not None:
        raise DataError(f"{dataset.name}: a store does not keep weights of samples; leave them out")
    small = {"labels": dataset.labels} | official | _groups(dataset)
    notes, bad_files = _named(dataset)
    layout = Layout(
        name=_utf8(dataset.name),
        samples=n,
        image_shape=tuple(shape),
        type="uint8" if dataset.images.dtype == torch.uint8 else "float32",
        classes=dataset.classes,
        flip_axes=dataset.flip_axes,
        shift=dataset.shift,
        rotation=float(dataset.rotation),
        plane=dataset.plane,
        crop=float(dataset.crop),
        source={key: _utf8(value) for key, value in dataset.source.items()},
        grid=grid.parts,
        overlap=grid.overlap,
        shard=max(1, min(_BLOCK // size, _MOST_SAMPLES, n)),
        official_test=len(official["official_test"]) if "official_test" in official else None,
        official_validation=len(official["official_validation"]) if "official_validation" in official else None,
        notes=notes,
        bad_files=bad_files,
        window=dataset.window,
        label_groups=None if dataset.label_groups is None else dict(dataset.label_groups),
        resized=dataset.resized,
        resize=dataset.resize,
        groups=dataset.groups is not None,
        provenance=provenance,
        sha256={name: _sha256(_bytes(values)) for name, values in small.items()},
    )
    if len(layout.to_json()) > MOST_JSON - 2**12:  # room for the checksums to come
        raise DataError(
            f"{dataset.name}: the names of classes and files take more than the {MOST_JSON:,} bytes that a store has; "
            "shorten them"
        )
    return layout


def _named(dataset: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return notes, and the files that were left out, as far as a store names them."""
    bad = dataset.bad_files
    more = [f"left out: {len(bad) - _MOST_BAD_FILES:,} more files"] if len(bad) > _MOST_BAD_FILES else []
    notes = tuple(map(_utf8, [*dataset.notes, *more]))
    return notes, tuple((_utf8(one.file), _utf8(one.reason)) for one in bad[:_MOST_BAD_FILES])


def _official(dataset: Dataset) -> dict[str, Tensor]:
    sets = {"official_test": dataset.official_test, "official_validation": dataset.official_validation}
    return {name: samples for name, samples in sets.items() if samples is not None}


def _groups(dataset: Dataset) -> dict[str, Tensor]:
    return {} if dataset.groups is None else {"groups": dataset.groups}


def _check_free(path: Path, layout: Layout, *, force: bool, dataset: Dataset | None = None) -> bool:
    """Tell whether an earlier store is to be replaced, not gone on with; raise a `DataError` if it may not be.

    With ``dataset``, the images that are there are compared as well.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        raise DataError(f"{path} exists and is not a store; choose another DEST")
    if all(entry.name == _LOCK or entry.name.startswith(_ASIDE) for entry in entries(path)):
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


def _holds_others(path: Path, layout: Layout, dataset: Dataset) -> bool:
    """Tell whether blocks that are there are of other images; of images that are not in memory, one of each is read."""
    if not layout.has_content or (layout.complete and _sum(path, layout, "content") != layout.sha256["content"]):
        return False  # not known; damaged blocks are written again
    file, size = layout.written()["content"]
    for b in range(layout.blocks):
        place = path / file.format(b=b)
        if place.is_file() and place.stat().st_size == size:
            known = np.frombuffer(place.read_bytes(), np.uint8).reshape(-1, BYTES)
            samples = layout.block(b) if isinstance(dataset.images, Tensor) else layout.block(b)[:1]
            if any((digest_of(_image(dataset, i)) != known[n]).any() for n, i in enumerate(samples)):
                return True
    return False


def _clear(path: Path, layout: Layout, dataset: Dataset, *, force: bool) -> Layout:
    """Move an earlier store aside, if there is one that is not gone on with; its description is moved last.

    Returns
    -------
    layout
        Of the store that is to be written: of version 1 if it was begun so.
    """
    if _check_free(path, layout, force=force, dataset=dataset):
        found = [p for p in entries(path) if p.name != _LOCK and not p.name.startswith(_ASIDE)]
        aside = next(into for n in itertools.count(1) if not (into := path / f"{_ASIDE}{n}").exists())
        move_aside(sorted(found, key=lambda p: p.name == ROOT), path, aside)
    return _of_version(layout, Layout.read(path).version) if (path / ROOT).is_file() else layout


def _same(layout: Layout, version: int | None = None) -> Layout:
    """Return what two layouts share if one can go on where the other ended; what was passed over may differ."""
    layout = _of_version(layout, version or layout.version)
    sums = {name: value for name, value in layout.sha256.items() if name not in layout.written()}
    told = {"sha256": sums, "complete": False, "provenance": {}, "notes": (), "bad_files": ()}
    return layout.model_copy(update=told)


def _of_version(layout: Layout, version: int) -> Layout:
    defaults = {name: Layout.model_fields[name].default for name in SINCE_2}
    return layout.model_copy(update={"version": version} | (defaults if version == 1 else {}))


class _Writer:
    def __init__(self, dataset: Dataset, path: Path, layout: Layout, advance: Advance | None) -> None:
        self.dataset, self.path, self.layout = dataset, path, layout
        self._advance = advance
        self._done = 0
        self._lock = threading.Lock()
        self._sums: dict[str, str] = {}  # of the store as it was when it was complete, if it was
        self._stop = threading.Event()

    def start(self) -> None:
        """Write what is known before the first image; the root first, by which a store is told from other folders."""
        if self._file(ROOT).is_file():
            self._sums = Layout.read(self.path).sha256
        self._write(ROOT, self.layout.to_json())
        for name, metadata in self.layout.arrays().items():
            self._write(f"{name}/{ROOT}", to_json(metadata))
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        self._write(f"subdomains/{ROOT}", to_json(group))
        for n in range(len(self.layout.boxes)):
            self._write(f"subdomains/{n}/{ROOT}", to_json(self.layout.subdomain_array(n)))
        self._write("labels/c/0", _bytes(self.dataset.labels))
        for name, samples in (_official(self.dataset) | _groups(self.dataset)).items():
            self._write(f"{name}/c/0", _bytes(samples))

    def blocks(self, workers: int) -> None:
        """Write all blocks that are not there."""
        known = {name: self._sums[name] for name in self.layout.written() if name in self._sums}
        altered = any(_sum(self.path, self.layout, name) != value for name, value in known.items())
        missing = [b for b in range(self.layout.blocks) if altered or not self._is_there(b)]
        self._count(self.layout.samples - sum(len(self.layout.block(b)) for b in missing))
        threads = ThreadPoolExecutor(workers, thread_name_prefix="ddcnn-prepare")
        try:
            for _ in threads.map(self._block, missing):
                pass
        finally:
            self._stop.set()
            threads.shutdown(cancel_futures=True)

    def finish(self) -> Layout:
        """Mark the store as complete."""
        sums = self.layout.sha256 | {name: _sum(self.path, self.layout, name) for name in self.layout.written()}
        layout = self.layout.model_copy(update={"sha256": sums, "complete": True})
        self._write(ROOT, layout.to_json())
        return layout

    def _is_there(self, b: int) -> bool:
        """Tell whether a block is complete: its checksums are written last."""
        layout = self.layout
        for name, size in layout.written().values():
            file = self._file(name.format(b=b))
            if not file.is_file() or file.stat().st_size != size:
                return False
        try:
            for n in range(len(layout.boxes)):
                path = self._file(layout.shard_path(n, b))
                Shard(path, places=layout.shard, used=len(layout.block(b)), largest=2**62)
        except DamagedError:
            return False
        return True

    def _block(self, b: int) -> None:
        """Write a block, unless another one failed."""
        try:
            encoded = self._encoded(b)
            if encoded is None:
                return
            chunks, arrays = encoded
            for n, parts in enumerate(chunks):
                self._write(self.layout.shard_path(n, b), join(parts, self.layout.shard))
            for name, (file, _) in self.layout.written().items():
                self._write(file.format(b=b), arrays[name].tobytes())
        except BaseException:
            self._stop.set()
            raise

    def _encoded(self, b: int) -> tuple[list[list[bytes]], dict[str, np.ndarray]] | None:
        """Return the chunks of each subdomain, and moments, digests and checksums; None if all is to stop."""
        layout = self.layout
        chunks: list[list[bytes]] = [[] for _ in layout.boxes]
        measured = np.zeros((layout.shard, layout.channels, 4), "<f8")
        content = np.zeros((layout.shard, BYTES), np.uint8)
        sums = np.zeros((len(layout.boxes), layout.shard, 32), np.uint8)
        for place, i in enumerate(layout.block(b)):
            if self._stop.is_set():
                return None
            image = _image(self.dataset, i)
            measured[place] = self._moments(i, image)
            content[place] = digest_of(image)
            for n, box in enumerate(layout.boxes):
                chunk = compress(image[(slice(None), *(slice(*axis) for axis in box))].numpy())
                chunks[n].append(chunk)
                sums[n, place] = np.frombuffer(hashlib.sha256(chunk).digest(), np.uint8)
            self._count(1)
        return chunks, {"moments": measured, "content": content, "sha256": sums}

    def _moments(self, i: int, image: Tensor) -> np.ndarray:
        measured = moments(image.unsqueeze(0))[0].numpy()
        if not np.isfinite(measured).all():
            raise DataError(f"{self.dataset.name}: image {i} holds NaN or infinity; remove it or replace the values")
        return measured

    def _count(self, samples: int) -> None:
        with self._lock:
            self._done += samples
            if self._advance is not None:
                self._advance(self._done, self.layout.samples)

    def _file(self, name: str) -> Path:
        return self.path / name

    def _write(self, name: str, content: bytes) -> None:
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(name), content)


def _sum(path: Path, layout: Layout, name: str) -> str:
    """Return the SHA-256 of an array that is written block by block, as far as it is there."""
    file, whole = layout.written()[name][0], hashlib.sha256()
    for b in range(layout.blocks):
        if (block := path / file.format(b=b)).is_file():
            whole.update(block.read_bytes())
    return whole.hexdigest()


def _image(dataset: Dataset, i: int) -> Tensor:
    images = dataset.images
    return images.image(i) if isinstance(images, Images) else images[i]


def _bytes(values: Tensor) -> bytes:
    return values.numpy().astype("<i8").tobytes()


def _utf8(text: str) -> str:
    """Return text in which bytes of names that are no UTF-8 are shown as the terminal shows them."""
    return text.encode(errors="backslashreplace").decode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

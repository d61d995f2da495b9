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
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import named_paths
from ddcnn.data.lazy import Images
from ddcnn.data.moments import moments
from ddcnn.data.store.layout import ROOT, Layout, is_own, to_json
from ddcnn.data.store.shard import DamagedError, Shard, compress, join, require_codecs
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError
from ddcnn.folders import FolderLock, entries, is_within, move_aside

_LOCK = ".lock"
_ASIDE = ".replaced-"  # and a number: the store that was here before, until this one is complete
_ARRAYS = r"(subdomains(/\d+)?|labels|moments|sha256|official_test|official_validation|groups)"
_OWN = re.compile(rf"{_LOCK}|{_ASIDE}\d+/.*|{ROOT}|{_ARRAYS}/({ROOT}|c/[\d/]+)|(.*/)?\.[^/]+\.[0-9a-f]{{8}}")

_BLOCK = 2**25  # bytes of pixels: what a thread holds, compressed, until it writes
_MOST_SAMPLES = 4096

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
    and 32 MiB. A store that is complete and whole is left as it is.

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
    writer = _Writer(dataset, path, layout, advance)
    lock = FolderLock(path / _LOCK)
    try:
        _check_free(path, layout, force=force)
        path.mkdir(parents=True, exist_ok=True)
        if not lock.acquire():
            raise DataError(f"{path} is being written by another process; wait for its end, or choose another DEST")
        _clear(path, layout, force=force)
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
    return Layout(
        name=_utf8(dataset.name),
        samples=n,
        image_shape=tuple(shape),
        type="uint8" if dataset.images.dtype == torch.uint8 else "float32",
        classes=dataset.classes,
        flip_axes=dataset.flip_axes,
        shift=dataset.shift,
        rotation=float(dataset.rotation),
        plane=dataset.plane,
        source={key: _utf8(value) for key, value in dataset.source.items()},
        grid=grid.parts,
        overlap=grid.overlap,
        shard=max(1, min(_BLOCK // size, _MOST_SAMPLES, n)),
        official_test=len(official["official_test"]) if "official_test" in official else None,
        official_validation=len(official["official_validation"]) if "official_validation" in official else None,
        groups=dataset.groups is not None,
        provenance=provenance,
        sha256={name: _sha256(_bytes(values)) for name, values in small.items()},
    )


def _official(dataset: Dataset) -> dict[str, Tensor]:
    sets = {"official_test": dataset.official_test, "official_validation": dataset.official_validation}
    return {name: samples for name, samples in sets.items() if samples is not None}


def _groups(dataset: Dataset) -> dict[str, Tensor]:
    return {} if dataset.groups is None else {"groups": dataset.groups}


def _check_free(path: Path, layout: Layout, *, force: bool) -> bool:
    """Tell whether an earlier store is to be replaced, not gone on with; raise a `DataError` if it may not be."""
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
        if _same(Layout.read(path)) == _same(layout):
            return False
    except DataError:  # of another version
        if not force:
            raise
    if not force:
        raise DataError(
            f"{path} is a store of other images or of another grid; choose another DEST, or --force to replace it"
        )
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if (entry.is_symlink() or not entry.is_dir()) and not _OWN.fullmatch(name):
            raise DataError(f"{entry} is not of the store in {path} and is not replaced; move it elsewhere first")
    return True


def _clear(path: Path, layout: Layout, *, force: bool) -> None:
    """Move an earlier store aside, if there is one that is not gone on with; its description is moved last."""
    if _check_free(path, layout, force=force):
        found = [p for p in entries(path) if p.name != _LOCK and not p.name.startswith(_ASIDE)]
        aside = next(into for n in itertools.count(1) if not (into := path / f"{_ASIDE}{n}").exists())
        move_aside(sorted(found, key=lambda p: p.name == ROOT), path, aside)


def _same(layout: Layout) -> Layout:
    """Return what two layouts share if one can go on where the other ended."""
    sums = {name: value for name, value in layout.sha256.items() if name != "moments"}
    return layout.model_copy(update={"sha256": sums, "complete": False, "provenance": {}})


class _Writer:
    def __init__(self, dataset: Dataset, path: Path, layout: Layout, advance: Advance | None) -> None:
        self.dataset, self.path, self.layout = dataset, path, layout
        self._advance = advance
        self._done = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Write what is known before the first image; the root first, by which a store is told from other folders."""
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
        missing = [b for b in range(self.layout.blocks) if not self._is_there(b)]
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
        content = b"".join(self._file(f"moments/c/{b}/0/0").read_bytes() for b in range(self.layout.blocks))
        sums = self.layout.sha256 | {"moments": _sha256(content)}
        layout = self.layout.model_copy(update={"sha256": sums, "complete": True})
        self._write(ROOT, layout.to_json())
        return layout

    def _is_there(self, b: int) -> bool:
        """Tell whether a block is complete: its checksums are written last."""
        layout = self.layout
        expected = len(layout.boxes) * layout.shard * 32
        for name, size in (
            (f"sha256/c/0/{b}/0", expected),
            (f"moments/c/{b}/0/0", layout.shard * layout.channels * 32),
        ):
            file = self._file(name)
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
            chunks, measured, sums = encoded
            for n, parts in enumerate(chunks):
                self._write(self.layout.shard_path(n, b), join(parts, self.layout.shard))
            self._write(f"moments/c/{b}/0/0", measured.tobytes())
            self._write(f"sha256/c/0/{b}/0", sums.tobytes())
        except BaseException:
            self._stop.set()
            raise

    def _encoded(self, b: int) -> tuple[list[list[bytes]], np.ndarray, np.ndarray] | None:
        """Return the chunks of each subdomain, the moments and the checksums; None if all is to stop."""
        layout = self.layout
        chunks: list[list[bytes]] = [[] for _ in layout.boxes]
        measured = np.zeros((layout.shard, layout.channels, 4), "<f8")
        sums = np.zeros((len(layout.boxes), layout.shard, 32), np.uint8)
        for place, i in enumerate(layout.block(b)):
            if self._stop.is_set():
                return None
            image = self._image(i)
            measured[place] = self._moments(i, image)
            for n, box in enumerate(layout.boxes):
                chunk = compress(image[(slice(None), *(slice(*axis) for axis in box))])
                chunks[n].append(chunk)
                sums[n, place] = np.frombuffer(hashlib.sha256(chunk).digest(), np.uint8)
            self._count(1)
        return chunks, measured, sums

    def _image(self, i: int) -> np.ndarray:
        images = self.dataset.images
        return (images.image(i) if isinstance(images, Images) else images[i]).numpy()

    def _moments(self, i: int, image: np.ndarray) -> np.ndarray:
        measured = moments(torch.from_numpy(image).unsqueeze(0))[0].numpy()
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


def _bytes(values: Tensor) -> bytes:
    return values.numpy().astype("<i8").tobytes()


def _utf8(text: str) -> str:
    """Return text in which bytes of names that are no UTF-8 are shown as the terminal shows them."""
    return text.encode(errors="backslashreplace").decode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

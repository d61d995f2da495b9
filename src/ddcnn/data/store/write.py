"""Write a data set as a store: in parallel, with bounded memory, resumable at any moment."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch

from ddcnn.data.dataset import Dataset
from ddcnn.data.prefetch import readers
from ddcnn.data.store.blocks import Advance, Writer, small_arrays
from ddcnn.data.store.layout import MOST_JSON, Layout
from ddcnn.data.store.replacing import LOCK, check_free, clear, remove_replaced
from ddcnn.data.store.shard import require_codecs
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError
from ddcnn.folders import FolderLock

_BLOCK = 2**25  # bytes of pixels: what a thread holds, compressed, until it writes
_MOST_SAMPLES = 4096
_MOST_BAD_FILES = 1_000  # that a store names; the others are counted


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
    lock = FolderLock(path / LOCK)
    try:
        if lock.is_taken():
            raise _is_written(path)
        try:
            check_free(path, layout, force=force)
        except FileNotFoundError:  # moved aside while it was looked at
            raise _is_written(path) from None
        path.mkdir(parents=True, exist_ok=True)
        if not lock.acquire():
            raise _is_written(path)
        layout = clear(path, layout, dataset, force=force)
        writer = Writer(dataset, path, layout, advance)
        writer.start()
        writer.blocks(workers or readers())
        layout = writer.finish()
        remove_replaced(path)
        return layout
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; mend this and run the same command again to go on"
        ) from None
    finally:
        lock.remove()


def _is_written(path: Path) -> DataError:
    return DataError(f"{path} is being written by another process; wait for its end, or choose another DEST")


def _plan(dataset: Dataset, grid: Grid, provenance: dict[str, Any]) -> Layout:
    n, *shape = dataset.images.shape
    size = math.prod(shape) * dataset.images.dtype.itemsize
    grid.subdomains(shape[1:])  # a grid that does not fit is refused here
    if dataset.weights is not None:
        raise DataError(f"{dataset.name}: a store does not keep weights of samples; leave them out")
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
        official_test=None if dataset.official_test is None else len(dataset.official_test),
        official_validation=None if dataset.official_validation is None else len(dataset.official_validation),
        notes=notes,
        bad_files=bad_files,
        window=dataset.window,
        label_groups=None if dataset.label_groups is None else dict(dataset.label_groups),
        resized=dataset.resized,
        resize=dataset.resize,
        groups=dataset.groups is not None,
        layout=dataset.layout,
        label_kind=dataset.label_kind,
        provenance=provenance,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in small_arrays(dataset).items()},
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


def _utf8(text: str) -> str:
    """Return text in which bytes of names that are no UTF-8 are shown as the terminal shows them."""
    return text.encode(errors="backslashreplace").decode()

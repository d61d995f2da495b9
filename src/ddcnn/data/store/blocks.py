"""Write the files of a store: block by block, in parallel, each block complete or not there."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch import Tensor

from ddcnn.atomic import left_half_written, write_atomic
from ddcnn.data.content import BYTES, digest_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.lazy import Images
from ddcnn.data.moments import moments
from ddcnn.data.store.layout import ROOT, Layout, to_json
from ddcnn.data.store.shard import DamagedError, Shard, compress, join
from ddcnn.errors import DataError

Advance = Callable[[int, int], None]


class Writer:
    """Writes what is not there yet of a store."""

    def __init__(self, dataset: Dataset, path: Path, layout: Layout, advance: Advance | None) -> None:
        self.dataset, self.path, self.layout = dataset, path, layout
        self._advance = advance
        self._done = 0
        self._lock = threading.Lock()
        self._sums: dict[str, str] = {}  # of the store as it was when it was complete, if it was
        self._stop = threading.Event()

    def start(self) -> None:
        """Write what is known before the first image; the root first, by which a store is told from other folders.

        What a killed process has left half-written is removed.
        """
        for path in [*left_half_written(self.path, rf"{re.escape(ROOT)}|\d+")]:
            path.unlink()
        if self._file(ROOT).is_file():
            self._sums = Layout.read(self.path).sha256
        self._write(ROOT, self.layout.to_json())
        for name, metadata in self.layout.arrays().items():
            self._write(f"{name}/{ROOT}", to_json(metadata))
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        self._write(f"subdomains/{ROOT}", to_json(group))
        for n in range(len(self.layout.boxes)):
            self._write(f"subdomains/{n}/{ROOT}", to_json(self.layout.subdomain_array(n)))
        for name, content in small_arrays(self.dataset).items():
            self._write(f"{name}/c/0", content)

    def blocks(self, workers: int) -> None:
        """Write all blocks that are not there."""
        known = {name: self._sums[name] for name in self.layout.written() if name in self._sums}
        altered = any(sum_of_blocks(self.path, self.layout, name) != value for name, value in known.items())
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
        sums = self.layout.sha256 | {
            name: sum_of_blocks(self.path, self.layout, name) for name in self.layout.written()
        }
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
            image = image_of(self.dataset, i)
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


def sum_of_blocks(path: Path, layout: Layout, name: str) -> str:
    """Return the SHA-256 of an array that is written block by block, as far as it is there."""
    file, whole = layout.written()[name][0], hashlib.sha256()
    for b in range(layout.blocks):
        if (block := path / file.format(b=b)).is_file():
            whole.update(block.read_bytes())
    return whole.hexdigest()


def image_of(dataset: Dataset, i: int) -> Tensor:
    """Return one image (C, *S)."""
    images = dataset.images
    return images.image(i) if isinstance(images, Images) else images[i]


def small_arrays(dataset: Dataset) -> dict[str, bytes]:
    """Return what a store holds of all samples at once: labels, official sets, groups."""
    arrays = {
        "labels": dataset.labels,
        "official_test": dataset.official_test,
        "official_validation": dataset.official_validation,
        "groups": dataset.groups,
    }
    return {name: _bytes(values) for name, values in arrays.items() if values is not None}


def _bytes(values: Tensor) -> bytes:
    return values.numpy().astype("<i8").tobytes()

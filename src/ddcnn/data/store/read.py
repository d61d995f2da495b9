"""Read a store: only the chunks that are asked for, each checked before it is used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped, UInt8
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.augmentation import Augmentation, origins
from ddcnn.data.bad_files import BadFile
from ddcnn.data.content import BYTES, hashed
from ddcnn.data.crops import cropped_window, neighbours
from ddcnn.data.dataset import Dataset
from ddcnn.data.files import open_regular, source_path
from ddcnn.data.lazy import Images
from ddcnn.data.store.layout import ROOT, Layout, read_json
from ddcnn.data.store.shard import DamagedError, Shard, decompress, require_codecs
from ddcnn.decomposition import Box, Decomposition, Subdomain, Subimages
from ddcnn.errors import DataError

Chunks = dict[int, np.ndarray]


class Store:
    """A complete store.

    Parameters
    ----------
    path
        Its folder.

    Attributes
    ----------
    layout
        What it holds.
    labels, moments, official, groups
        The small arrays; ``official`` are the sets of the publisher, by name. ``groups`` may be None.
    content
        The digests of the whole images, (samples, 16); None in a store of version 1.
    bytes_read
        How much of shards and checksums was read so far.

    Raises
    ------
    DataError
        The store is missing, incomplete, of another version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        require_codecs()
        self.path = path
        self.layout = layout = Layout.read(path)
        if not layout.complete:
            raise DataError(f"{path} is not complete; run the same ddcnn data prepare again, it will go on")
        for name, metadata in layout.arrays().items():
            self._check_metadata(name, metadata)
        for n in range(len(layout.boxes)):
            self._check_metadata(f"subdomains/{n}", layout.subdomain_array(n))
        self.labels = torch.from_numpy(self._small("labels", ["labels/c/0"], (layout.samples,), "<i8"))
        self.moments = torch.from_numpy(self._blocks("moments", (layout.channels, 4), "<f8"))
        self.content = self._blocks("content", (16,), "u1") if layout.has_content else None
        self.official = {name: torch.from_numpy(self._set(name, count)) for name, count in layout.official().items()}
        groups = self._small("groups", ["groups/c/0"], (layout.samples,), "<i8") if layout.groups else None
        self.groups = None if groups is None else torch.from_numpy(groups)
        self.bytes_read = 0
        self._shards: dict[tuple[int, int], tuple[Shard, bytes]] = {}
        self._starts, self._stops = np.moveaxis(np.array(layout.boxes), 2, 0)

    def digests(self) -> UInt8[np.ndarray, "n 16"]:
        """Return a digest of each image, without reading a pixel; in version 1, made of the checksums of its chunks.

        Raises
        ------
        DataError
            The checksums of the chunks cannot be read, or are not those of the images that the digests were made of.
        """
        layout, whole = self.layout, hashlib.sha256()
        head = f"store {layout.type} {layout.image_shape} {layout.grid} {layout.overlap} "
        found = np.empty((layout.samples, BYTES), np.uint8)
        for b in range(layout.blocks):
            sums = self._checksums(b)
            whole.update(sums.data)
            if self.content is None:
                for place, i in enumerate(layout.block(b)):
                    found[i] = hashed(head, sums[:, place].tobytes())
        if self.content is None:
            return found
        if whole.hexdigest() != layout.sha256.get("sha256"):
            raise DataError(
                f"{self.path / 'sha256'} is damaged: its SHA-256 differs; run the same ddcnn data prepare again"
            )
        return self.content

    def _checksums(self, b: int) -> UInt8[np.ndarray, "N shard 32"]:
        name, size = self.layout.written()["sha256"]
        try:
            path = self._inside(name.format(b=b))
            with open_regular(path) as file:
                content = file.read() if os.fstat(file.fileno()).st_size == size else b""
        except DamagedError as error:
            raise DataError(f"{self.path}: sha256 cannot be read: {error}") from None
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}; run the same ddcnn data prepare again to mend it"
            ) from None
        if len(content) != size:
            raise DataError(f"{path} is truncated; remove it and run the same ddcnn data prepare again to mend it")
        return np.frombuffer(content, np.uint8).reshape(len(self.layout.boxes), self.layout.shard, 32)

    def window(self, sample: int, box: Box, chunks: Chunks) -> Shaped[np.ndarray, "C *s"]:
        """Return a box of one image, from as few chunks as possible.

        Parameters
        ----------
        chunks
            What was read of this sample so far, by subdomain; it grows.

        Raises
        ------
        DataError
            A chunk is missing or damaged: sample, subdomain and file are named.
        """
        holders = self._holders(box)
        if holders:
            n = next((n for n in holders if n in chunks), holders[0])
            stored = self.layout.boxes[n]
            inner = (slice(a - start, b - start) for (a, b), (start, _) in zip(box, stored, strict=True))
            return self._chunk(sample, n, chunks)[(slice(None), *inner)]
        return self._assembled(sample, box, chunks)

    def touched(self, box: Box) -> int:
        """Return how many bytes, uncompressed, have to be read of a sample for a box."""
        needed = self._holders(box)[:1] or [n for n, core in enumerate(self.layout.cores) if _overlap(core, box)]
        return sum(int(np.prod(self.layout.chunk_shape(n))) for n in needed) * self.layout.item

    def _holders(self, box: Box) -> list[int]:
        """Return the subdomains whose chunks hold all of a box."""
        starts, stops = np.array(box).T
        inside: np.ndarray = np.logical_and(self._starts <= starts, stops <= self._stops).all(1)
        return [int(n) for n in np.flatnonzero(inside)]

    def _assembled(self, sample: int, box: Box, chunks: Chunks) -> np.ndarray:
        window = np.empty((self.layout.channels, *(stop - start for start, stop in box)), self.layout.type)
        for n, (core, stored) in enumerate(zip(self.layout.cores, self.layout.boxes, strict=True)):
            both = _overlap(core, box)
            if both:
                outer = (slice(a - start, b - start) for (a, b), (start, _) in zip(both, box, strict=True))
                inner = (slice(a - start, b - start) for (a, b), (start, _) in zip(both, stored, strict=True))
                window[(slice(None), *outer)] = self._chunk(sample, n, chunks)[(slice(None), *inner)]
        return window

    def _chunk(self, sample: int, n: int, chunks: Chunks) -> np.ndarray:
        if n not in chunks:
            block, place = divmod(sample, self.layout.shard)
            pixels = np.zeros(self.layout.chunk_shape(n), self.layout.type)
            try:
                shard, sums = self._shard(n, block)
                content = shard.chunk(place)
                self.bytes_read += len(content)
                decompress(content, sums[32 * place : 32 * place + 32], pixels)
            except DamagedError as error:
                raise DataError(
                    f"{self.path}: sample {sample}, subdomain {n} is damaged: {error}; remove "
                    f"{self.layout.shard_path(n, block)} in it and run the same ddcnn data prepare again to mend it"
                ) from None
            chunks[n] = pixels
        return chunks[n]

    def _shard(self, n: int, block: int) -> tuple[Shard, bytes]:
        """Return a shard, and the checksums of its chunks."""
        if (n, block) not in self._shards:
            layout, places = self.layout, self.layout.shard
            raw = int(np.prod(layout.chunk_shape(n))) * layout.item
            largest = raw + raw // 128 + 512  # zstd's own bound is a little lower
            path = self._inside(layout.shard_path(n, block))
            shard = Shard(path, places=places, used=len(layout.block(block)), largest=largest)
            sums = self._sums(n, block)
            self.bytes_read += shard.bytes_read + len(sums)
            self._shards[n, block] = shard, sums
        return self._shards[n, block]

    def _sums(self, n: int, block: int) -> bytes:
        size = 32 * self.layout.shard
        path = self._inside(f"sha256/c/0/{block}/0")
        try:
            with open_regular(path) as file:
                file.seek(n * size)
                sums = file.read(size)
        except OSError as error:
            raise DamagedError(f"the file of its checksum, {path}, cannot be read: {error.strerror}") from None
        if len(sums) < size:
            raise DamagedError(f"the file of its checksum, {path}, is truncated")
        return sums

    def _inside(self, name: str) -> Path:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise DamagedError(f"its file {path} is a link that leaves the store")
        return path

    def _check_metadata(self, name: str, expected: dict[str, object]) -> None:
        path = self.path / name / ROOT
        if read_json(path) != expected:
            raise DataError(f"{path} is damaged: it does not go with {self.path / ROOT}; prepare the store again")

    def _blocks(self, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        """Return an array that was written block by block, (samples, *shape)."""
        file, blocks = self.layout.written()[name][0], self.layout.blocks
        files = [file.format(b=b) for b in range(blocks)]
        return self._small(name, files, (blocks * self.layout.shard, *shape), kind)[: self.layout.samples]

    def _small(self, name: str, files: Sequence[str], shape: tuple[int, ...], kind: str) -> np.ndarray:
        """Return a small array whose SHA-256 is in the root."""
        expected, found, content = int(np.prod(shape)) * np.dtype(kind).itemsize, 0, []
        try:
            for file in files:
                path = self._inside(file)
                with open_regular(path) as opened:
                    found += os.fstat(opened.fileno()).st_size
                    if found > expected:
                        break
                    content.append(opened.read())
        except DamagedError as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; prepare the store again") from None
        joined = b"".join(content)
        if len(joined) != expected or hashlib.sha256(joined).hexdigest() != self.layout.sha256.get(name):
            raise DataError(f"{self.path / name} is damaged: its SHA-256 differs; prepare the store again")
        return np.frombuffer(bytearray(joined), kind).reshape(shape)

    def _set(self, name: str, count: int) -> np.ndarray:
        chosen = self._small(name, [f"{name}/c/0"], (count,), "<i8")
        if chosen.min() < 0 or chosen.max() >= self.layout.samples or len(np.unique(chosen)) < count:
            raise DataError(f"{self.path}: {name} should hold different samples in 0..{self.layout.samples - 1}")
        return chosen


class Stored(Images):
    """The images of a store, read when they are needed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shape = (store.layout.samples, *store.layout.image_shape)
        self.dtype = torch.uint8 if store.layout.type == "uint8" else torch.float32
        self._whole: Box = tuple((0, pixels) for pixels in store.layout.image_size)

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return image i."""
        return torch.from_numpy(self.store.window(i, self._whole, {}))

    def moments(self, samples: Int64[Tensor, " m"] | None = None) -> Float64[Tensor, "m C 4"]:
        """Return sum, sum of squares, minimum and maximum of some images, per channel; None: of all."""
        return self.store.moments if samples is None else self.store.moments[samples]

    def known_digests(self) -> UInt8[np.ndarray, "n 16"]:
        """Return what `Store.digests` does."""
        return self.store.digests()

    def take(
        self,
        samples: Int64[Tensor, " m"],
        subdomains: Sequence[Subdomain],
        augmentation: Augmentation | None = None,
        moves: Int64[Tensor, "m rows 2"] | None = None,
    ) -> Subimages:
        """Return some images as `Images.take` does, reading only the windows that the moves bring into view."""
        if augmentation is not None and augmentation.rotation:
            return super().take(samples, subdomains, augmentation, moves)  # what is turned comes from the whole image
        boxes = [s.box for s in subdomains]
        channels = self.store.layout.channels
        shapes = [(len(samples), channels, *(stop - start for start, stop in box)) for box in boxes]
        parts = [torch.empty(shape, dtype=self.dtype) for shape in shapes]
        arrays = [part.numpy() for part in parts]
        crops = None
        if moves is not None and augmentation is not None and augmentation.crop < 1:
            crops = augmentation.rows("crop", moves, len(self._whole))
        came_from = [None if moves is None else self._origins(moves, box) for box in boxes]
        for i, sample in enumerate(samples.tolist()):
            chunks: Chunks = {}
            for array, box, positions in zip(arrays, boxes, came_from, strict=True):
                if positions is None:
                    array[i] = self.store.window(sample, box, chunks)
                elif crops is None:
                    array[i] = self._moved(sample, [axis[i] for axis in positions], chunks)
                else:
                    array[i] = self._cropped(sample, crops[i], [axis[i] for axis in positions], chunks)
        if augmentation is not None and moves is not None:
            size = self.store.layout.image_size
            parts = [augmentation.finish(part, moves, box, size) for part, box in zip(parts, boxes, strict=True)]
        return Subimages(tuple(s.view(part) for s, part in zip(subdomains, parts, strict=True)))

    def _origins(self, moves: Tensor, box: Box) -> list[np.ndarray]:
        sizes = self.store.layout.image_size
        return [origins(moves[:, a], box[a], pixels).numpy() for a, pixels in enumerate(sizes)]

    def _cropped(self, sample: int, crops: Tensor, positions: list[np.ndarray], chunks: Chunks) -> Tensor:
        """Return pixels of an image that is cropped, and then moved, from the window that they need."""
        found, box = [], []
        for crop, places, pixels in zip(crops, positions, self.store.layout.image_size, strict=True):
            first, second, share = neighbours(crop.unsqueeze(0), torch.from_numpy(places).unsqueeze(0), pixels)
            start = int(first.min())
            box.append((start, int(second.max()) + 1))
            found.append((first[0] - start, second[0] - start, share[0]))
        return cropped_window(torch.from_numpy(self.store.window(sample, tuple(box), chunks)), found)

    def _moved(self, sample: int, positions: list[np.ndarray], chunks: Chunks) -> np.ndarray:
        box = tuple((int(axis.min()), int(axis.max()) + 1) for axis in positions)
        window = self.store.window(sample, box, chunks)
        for a, (axis, (start, _)) in enumerate(zip(positions, box, strict=True), 1):
            window = _along(window, a, axis - start)
        return window


def read_zarr(config: DataConfig) -> Dataset:
    """Open ``zarr:PATH``, a store that ``ddcnn data prepare`` made; its images stay on disk until they are needed.

    Raises
    ------
    DataError
        As `Store`.
    """
    store = Store(source_path(config))
    layout = store.layout
    return Dataset(
        name=config.source,
        images=Stored(store),
        labels=store.labels,
        classes=layout.classes,
        groups=store.groups,
        official_test=store.official.get("official_test"),
        official_validation=store.official.get("official_validation"),
        flip_axes=layout.flip_axes,
        shift=layout.shift,
        rotation=layout.rotation,
        plane=layout.plane,
        crop=layout.crop,
        notes=layout.notes,
        bad_files=tuple(BadFile(file, reason) for file, reason in layout.bad_files),
        window=layout.window,
        label_groups=layout.label_groups,
        resized=layout.resized,
        resize=layout.resize,
        layout=layout.layout,
        label_kind=layout.label_kind,
        source=layout.source | {"store": f"{store.path.resolve()}, made from {layout.name}"},
    )


def _along(window: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Return the pixels at some positions along an axis, without a copy where they are in a row."""
    first, last, count = int(positions[0]), int(positions[-1]), len(positions)
    before = (slice(None),) * axis
    if last - first == count - 1:
        return window[(*before, slice(first, last + 1))]
    if first - last == count - 1:
        return window[(*before, slice(first, last - 1 if last else None, -1))]
    return window.take(positions, axis)


def _overlap(core: Box, box: Box) -> Box:
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(core, box, strict=True))
    return both if all(a < b for a, b in both) else ()


def reading(store: Store, decomposition: Decomposition) -> str:
    """Return in one line how well a store fits a decomposition."""
    subdomains = decomposition.subdomains(store.layout.image_size)
    pixels = store.layout.channels * store.layout.item
    times = max(store.touched(s.box) / (math.prod(b - a for a, b in s.box) * pixels) for s in subdomains)
    if times <= 1:
        return "streamed: a worker reads the chunks of its subdomains and nothing else"
    made = "x".join(map(str, store.layout.grid))
    return (
        f"streamed: made for grid {made} with overlap {max(store.layout.overlap)}, so a worker reads up to {times:.2f} "
        "times the bytes of its subimages"
    )

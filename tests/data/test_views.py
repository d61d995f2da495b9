"""A decomposition that is no grid: the same subimages from memory, from a store, and from a worker's payload."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ddcnn
from ddcnn.data import Dataset
from ddcnn.data.augmentation import Augmentation, moved
from ddcnn.data.lazy import Lazy, OnHost, Resident
from ddcnn.data.store import Store, Stored, write_store
from ddcnn.data.subdomain_pixels import SubdomainPixels
from ddcnn.decomposition import Decomposition, Grid, Subdomain, WithCoarse, reassemble


@dataclass(frozen=True)
class Strided(Subdomain):
    """Every second pixel along each axis."""

    offset: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(-(-(stop - start) // 2) for start, stop in self.box)

    def view(self, pixels: Tensor) -> Tensor:
        return pixels[(..., *(slice(None, None, 2) for _ in self.box))]

    def paste(self, subimages: Tensor, images: Tensor) -> None:
        images[(..., *(slice(start, None, 2) for start in self.offset))] = subimages


class Interleaved(Decomposition):
    def __init__(self, axes: int) -> None:
        self.axes = axes

    def __len__(self) -> int:
        return int(2**self.axes)

    def subdomains(self, image_size: Sequence[int]) -> tuple[Strided, ...]:
        size = tuple(image_size)
        offsets = [tuple(int(digit) for digit in format(n, f"0{self.axes}b")) for n in range(len(self))]
        boxes = [tuple(zip(offset, size, strict=True)) for offset in offsets]
        return tuple(Strided(n, size, box, offset) for n, (box, offset) in enumerate(zip(boxes, offsets, strict=True)))


@dataclass(frozen=True)
class Triangle(Subdomain):
    """One side of the diagonal of all pixels but those of index 0."""

    upper: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.box)

    def view(self, pixels: Tensor) -> Tensor:
        mask = torch.ones(self.shape[-2:], dtype=torch.bool)
        return pixels * (torch.triu(mask) if self.upper else torch.tril(mask))

    def paste(self, subimages: Tensor, images: Tensor) -> None:
        raise NotImplementedError


class Triangles(Decomposition):
    def __len__(self) -> int:
        return 2

    def subdomains(self, image_size: Sequence[int]) -> tuple[Triangle, ...]:
        size = tuple(image_size)
        return tuple(Triangle(n, size, tuple((1, pixels) for pixels in size), bool(n)) for n in range(2))


def built_in(axes: int) -> list[Decomposition]:
    return [
        WithCoarse(Grid((2, 1, 2)[:axes], overlap=1), (3,)),
        WithCoarse(ddcnn.Interleaved((1, 2, 2)[:axes])),
        ddcnn.Triangles(),
        ddcnn.Voronoi(3, seed=3),
        ddcnn.Rings((1, 3)),
        ddcnn.Boxes(3, size=0.7),
    ]


def _expected(images: Tensor, subdomain: Subdomain) -> Tensor:
    """Return a subimage by plain indexing of the whole image, or as the subdomain itself cuts it out of that."""
    if isinstance(subdomain, Strided):
        return images[(..., *(slice(start, None, 2) for start in subdomain.offset))]
    if not isinstance(subdomain, Triangle):
        return subdomain.cut(images)
    inner = images[(..., *(slice(1, None) for _ in subdomain.box))].clone()
    rows, columns = torch.arange(inner.shape[-2])[:, None], torch.arange(inner.shape[-1])
    inner[..., (columns < rows) if subdomain.upper else (columns > rows)] = 0
    return inner


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_same_pixels_from_everywhere(data: st.DataObject) -> None:
    axes = data.draw(st.integers(2, 3))
    size = tuple(data.draw(st.integers(4, 9)) for _ in range(axes))
    dtype = data.draw(st.sampled_from([torch.uint8, torch.float32]))
    images = torch.randint(0, 256, (5, 2, *size), generator=torch.Generator().manual_seed(0)).to(dtype)
    every = data.draw(st.sampled_from([Interleaved(axes), Triangles(), *built_in(axes)])).subdomains(size)
    chosen = tuple(data.draw(st.permutations(every)))[: data.draw(st.integers(1, len(every)))]
    flips = tuple(axis for axis in range(axes) if data.draw(st.booleans()))
    augmentation = Augmentation(flips, shift=data.draw(st.integers(0, 3)))
    samples = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))
    drawn = augmentation.draw(samples=5, axes=axes, seed=3, epoch=1)[samples]
    moves = drawn if data.draw(st.booleans()) else None
    whole = images[samples] if moves is None else moved(images[samples], moves)
    indices, arrays = SubdomainPixels.of(images, chosen, augmentation).pack()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        dataset = Dataset("made", images, torch.arange(5) % 2, ("a", "b"))
        write_store(dataset, path, Grid((2,) * axes, overlap=data.draw(st.integers(0, 1))), workers=1)
        sources = {
            "resident": Resident(images),
            "host": OnHost(images),
            "lazy": Lazy(lambda i: images[i], images.shape, dtype),
            "store": Stored(Store(path)),
            "payload": SubdomainPixels.unpack(indices, arrays, images.shape),
        }
        for name, source in sources.items():
            seen = source.take(samples, chosen, augmentation, moves)
            for part, subdomain in zip(seen.parts, chosen, strict=True):
                expected = _expected(whole, subdomain)
                assert part.dtype == expected.dtype
                assert torch.equal(part, expected), name


def test_images_are_taken_by_numbers_as_of_a_tensor(tmp_path: Path) -> None:
    images = torch.arange(5 * 8, dtype=torch.uint8).view(5, 1, 2, 4)
    write_store(Dataset("made", images, torch.arange(5) % 2, ("a", "b")), tmp_path / "s.zarr", Grid((2, 2)), workers=1)
    lazy = Lazy(lambda i: images[i], images.shape, images.dtype)
    for source in (Resident(images), OnHost(images), lazy, Stored(Store(tmp_path / "s.zarr"))):
        for index in (slice(2), slice(None, None, 2), 3, -1, [1, -2], [], torch.tensor([4, 0]), slice(9, 9)):
            assert torch.equal(source[index], images[index]), (type(source).__name__, index)
        with pytest.raises(IndexError):
            source[5]


@given(st.tuples(st.integers(2, 7), st.integers(2, 7)))
def test_interleaved_subdomains_are_put_together_again(size: tuple[int, int]) -> None:
    images = torch.arange(2 * size[0] * size[1]).view(2, 1, *size)
    subdomains = Interleaved(2).subdomains(size)
    assert torch.equal(reassemble([s.cut(images) for s in subdomains], subdomains), images)

"""What is read is what was written: whole, in windows, flipped and shifted; and no more than needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.bad_files import BadFile
from ddcnn.data.description import InputDescription
from ddcnn.data.lazy import Lazy
from ddcnn.data.moments import moments
from ddcnn.data.store import Stored, reading
from ddcnn.decomposition import Grid, cut
from tests.data.store.helper import make_dataset

CASES = [
    pytest.param((9, 11, 7), (2, 3, 2), torch.uint8, id="volumes"),
    pytest.param((9, 11, 7), (1, 1, 1), torch.uint8, id="whole"),
    pytest.param((13, 8), (3, 2), torch.float32, id="images"),
]


@pytest.mark.parametrize(("size", "grid", "dtype"), CASES)
@pytest.mark.parametrize("overlap", [0, 2])
def test_zarr_python_reads_the_same(
    made: Callable[..., Stored],
    zarr_python: Any,
    size: tuple[int, ...],
    grid: tuple[int, ...],
    dtype: torch.dtype,
    overlap: int,
) -> None:
    dataset = make_dataset(size=size, dtype=dtype)
    store = made(dataset, Grid(grid, overlap=overlap)).store
    group = zarr_python.open_group(store.path, mode="r")
    parts = cut(dataset.images, Grid(grid, overlap=overlap).subdomains(size))
    assert len(list(group["subdomains"].array_keys())) == len(parts)
    for n, part in enumerate(parts):
        np.testing.assert_array_equal(group[f"subdomains/{n}"][:], part.numpy())
    np.testing.assert_array_equal(group["labels"][:], dataset.labels.numpy())
    np.testing.assert_array_equal(group["official_test"][:], [5, 6])
    measured = dataset.images.double().flatten(2)
    np.testing.assert_allclose(group["moments"][..., 0], measured.sum(2))
    np.testing.assert_allclose(group["moments"][..., 1], measured.square().sum(2))
    np.testing.assert_array_equal(group["moments"][..., 2:], torch.stack(measured.aminmax(dim=2), 2))


@pytest.mark.parametrize(("size", "grid", "dtype"), CASES)
@pytest.mark.parametrize("overlap", [0, 2])
def test_windows_are_those_of_the_augmented_whole_image(
    made: Callable[..., Stored], size: tuple[int, ...], grid: tuple[int, ...], dtype: torch.dtype, overlap: int
) -> None:
    dataset = make_dataset(size=size, dtype=dtype)
    images = made(dataset, Grid(grid, overlap=overlap))
    samples = torch.tensor([6, 0, 3])
    assert torch.equal(images[samples], dataset.images[samples])
    augmentation = Augmentation(tuple(range(len(size))), shift=3)
    others = [Grid(grid, overlap=overlap), Grid(grid, overlap=1), Grid(tuple(range(2, 2 + len(size))), overlap=1)]
    for epoch in range(3):
        moves = augmentation.draw(samples=7, axes=len(size), seed=1, epoch=epoch)[samples]
        whole = augmentation.apply(dataset.images[samples], moves)
        everything = Grid((1,) * len(size)).subdomains(size)
        assert torch.equal(images.take(samples, everything, augmentation, moves).parts[0], whole)
        for other in others:
            subdomains = other.subdomains(size)[1:]
            found = images.take(samples, subdomains, augmentation, moves).parts
            assert all(torch.equal(a, b) for a, b in zip(found, cut(whole, subdomains), strict=True))


def test_facts_survive(made: Callable[..., Stored]) -> None:
    told: dict[str, Any] = {
        "notes": ("laid on white: 2 files", "passed over: caf\xe9 \x1b[2J"),
        "bad_files": (BadFile("x.png", "x.png is empty"),),
        "window": (-1000.0, 400.5),
        "label_groups": {"a": ("0",), "b": ("1", "2")},
        "resized": True,
        "resize": "crop",
        "layout": "NCDHW",
        "label_kind": "int64",
    }
    dataset = replace(make_dataset(), **told)
    described = InputDescription.of(dataset, DataConfig())
    assert None not in vars(described).values()  # whatever a network has to know of its input is tried here
    path = made(dataset, Grid((2, 2, 1))).store.path
    opened = open_data(DataConfig(source=f"zarr:{path}"))
    assert torch.equal(opened.labels, dataset.labels)
    assert opened.official_test is not None
    assert opened.official_test.tolist() == [5, 6]
    assert opened.official_validation is not None
    assert opened.official_validation.tolist() == [0]
    assert (opened.rotation, opened.plane) == (7.5, (0, 1))
    assert (opened.classes, opened.flip_axes, opened.shift) == (("a", "b"), (1,), 1)
    assert opened.source["publisher"] == "nobody"
    assert (opened.image_size, opened.channels, opened.images.shape) == ((9, 11, 7), 2, (7, 2, 9, 11, 7))
    assert opened.value_range == (dataset.images.min(), dataset.images.max())
    assert {name: getattr(opened, name) for name in told} == told
    assert InputDescription.of(opened, DataConfig()) == described


def test_a_store_of_version_1_is_read_as_it_was() -> None:
    """Made by the commit before version 2: `Grid((1, 2))`, and how `version-1.json` says."""
    path = Path(__file__).with_name("version-1")
    said = json.loads(path.with_suffix(".json").read_text())
    opened = open_data(DataConfig(source=f"zarr:{path}"))
    assert isinstance(opened.images, Stored)
    assert opened.images[torch.arange(4)].tolist() == said["images"]
    assert opened.labels.tolist() == said["labels"]
    assert (opened.notes, opened.window, opened.label_groups, opened.resized) == ((), None, None, False)


def test_moments_do_not_depend_on_where_the_images_are(made: Callable[..., Stored]) -> None:
    dataset = make_dataset(samples=9, size=(40, 60), dtype=torch.float32)
    stored = made(dataset, Grid((2, 2)))
    some = torch.tensor([1, 4, 8])
    assert torch.equal(stored.moments(some), dataset.moments(some))
    lazy = Lazy(lambda i: dataset.images[i], dataset.images.shape, torch.float32)
    assert torch.equal(lazy.moments(some), moments(dataset.images[some]))


def _bytes(images: Stored, moves: torch.Tensor | None, grid: Grid, n: int) -> int:
    before = images.store.bytes_read
    images.take(torch.arange(len(images)), [grid.subdomains(images.shape[2:])[n]], None, moves)
    return images.store.bytes_read - before


def test_one_of_32_subdomains_costs_a_32th(made: Callable[..., Stored]) -> None:
    grid = Grid((4, 4, 2))
    images = made(make_dataset(samples=6, channels=1, size=(32, 32, 16)), grid)  # noise: not to be compressed
    pixels = images.store.layout.samples * 32 * 32 * 16
    assert pixels / 32 <= _bytes(images, None, grid, 5) < 1.2 * pixels / 32


def test_a_flip_costs_nothing_and_a_shift_the_neighbours(made: Callable[..., Stored]) -> None:
    dataset = make_dataset(samples=3, channels=1, size=(40, 40))
    grid = Grid((5, 5))
    plain = made(dataset, grid)
    once = _bytes(plain, None, grid, 6)
    flipped = torch.tensor([[1, 0], [1, 0]]).expand(3, 2, 2)
    shifted = torch.tensor([[0, 1], [0, -1]]).expand(3, 2, 2)
    assert _bytes(made(dataset, grid, "f.zarr"), flipped, grid, 6) == pytest.approx(once, rel=0.05)
    assert _bytes(made(dataset, grid, "n.zarr"), shifted, grid, 6) == pytest.approx(4 * once, rel=0.05)
    with_margin = made(dataset, Grid((5, 5), overlap=1), "m.zarr")
    assert _bytes(with_margin, shifted, grid, 6) == pytest.approx(once * (10 / 8) ** 2, rel=0.2)


def test_what_another_grid_costs_is_said(made: Callable[..., Stored]) -> None:
    dataset = make_dataset(samples=2, channels=1, size=(8, 12))
    store = made(dataset, Grid((2, 2))).store
    assert reading(store, Grid((2, 2))) == "streamed: a worker reads the chunks of its subdomains and nothing else"
    assert reading(store, Grid((1, 2))) == reading(store, Grid((2, 2)))
    assert reading(store, Grid((4, 4))) == (
        "streamed: made for grid 2x2 with overlap 0, so a worker reads up to 4.00 times the bytes of its subimages"
    )
    margin = made(dataset, Grid((2, 2), overlap=1), "m.zarr").store
    assert reading(margin, Grid((2, 2), overlap=1)) == reading(store, Grid((2, 2)))
    assert "up to 1.46 times" in reading(margin, Grid((2, 2)))  # 5x7 pixels for 4x6


def test_a_bare_path_is_told_its_prefix(made: Callable[..., Stored]) -> None:
    path = made(make_dataset(), Grid((1, 1, 1))).store.path
    with pytest.raises(ValueError, match=f"is a path; say what it is: zarr:{path}"):
        open_data(DataConfig(source=str(path)))


def test_lazy_images_are_loaded_by_who_does_not_prepare(tmp_path: Path) -> None:
    from ddcnn.data.sources import SOURCES, open_lazily, register_source

    dataset = make_dataset()
    lazy = Lazy(lambda i: dataset.images[i], dataset.images.shape, torch.uint8)

    @register_source("one_by_one")
    def _read(config: DataConfig) -> Dataset:
        return Dataset(config.source, lazy, dataset.labels, ("a", "b"))

    try:
        assert open_lazily(DataConfig(source="one_by_one")).images is lazy
        loaded = open_data(DataConfig(source="one_by_one")).images
        assert isinstance(loaded, torch.Tensor)
        assert torch.equal(loaded, dataset.images)
    finally:
        del SOURCES["one_by_one"]

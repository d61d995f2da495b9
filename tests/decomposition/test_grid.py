"""Grids: where they cut, checked against plain arithmetic."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcnn.decomposition import Grid
from ddcnn.errors import DecompositionError


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return parts and overlap per axis, and an image size that they fit."""
    axes = draw(st.integers(2, 3))
    parts = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    overlap = tuple(draw(st.integers(0, 4)) for _ in range(axes))
    return parts, overlap, tuple(draw(st.integers(n, 11)) for n in parts)


def test_32_by_3_gives_11_11_10() -> None:
    parts = Grid((3, 1, 2)).subdomains((32, 5, 7))
    assert [s.box for s in parts[::2]] == [
        ((0, 11), (0, 5), (0, 4)),
        ((11, 22), (0, 5), (0, 4)),
        ((22, 32), (0, 5), (0, 4)),
    ]
    assert [s.shape for s in parts[1::2]] == [(11, 5, 3), (11, 5, 3), (10, 5, 3)]


def test_order_is_row_major() -> None:
    parts = Grid((2, 3)).subdomains((4, 9))
    assert [s.index for s in parts] == [0, 1, 2, 3, 4, 5]
    assert [(s.box[0][0], s.box[1][0]) for s in parts] == [(0, 0), (0, 3), (0, 6), (2, 0), (2, 3), (2, 6)]


def test_overlap_per_axis_grows_only_inwards() -> None:
    parts = Grid((1, 3), overlap=(2, 1)).subdomains((5, 9))
    assert [s.box for s in parts] == [((0, 5), (0, 4)), ((0, 5), (2, 7)), ((0, 5), (5, 9))]
    assert [s.core for s in parts] == [((0, 5), (0, 3)), ((0, 5), (3, 6)), ((0, 5), (6, 9))]


def test_one_subdomain_is_the_image() -> None:
    (only,) = Grid((1, 1), overlap=3).subdomains((5, 7))
    assert only.box == only.core == ((0, 5), (0, 7))
    assert (only.shape, only.pixels) == ((5, 7), 35)


def test_a_part_per_pixel() -> None:
    assert [s.shape for s in Grid((2, 3)).subdomains((2, 3))] == [(1, 1)] * 6


@given(grids())
def test_cores_tile_the_image_and_sizes_differ_by_one(case: tuple[tuple[int, ...], ...]) -> None:
    parts, overlap, size = case
    grid = Grid(parts, overlap=overlap)
    subdomains = grid.subdomains(size)
    assert len(subdomains) == len(grid) == math.prod(parts)
    pixels = [p for s in subdomains for p in itertools.product(*(range(*interval) for interval in s.core))]
    assert sorted(pixels) == list(itertools.product(*(range(n) for n in size)))
    for axis in range(len(size)):
        lengths = {stop - start for start, stop in (s.core[axis] for s in subdomains)}
        assert max(lengths) - min(lengths) <= 1


@given(grids())
def test_box_is_core_plus_overlap_inside_the_image(case: tuple[tuple[int, ...], ...]) -> None:
    parts, overlap, size = case
    grid = Grid(parts, overlap=overlap)
    for subdomain in grid.subdomains(size):
        for (start, stop), (low, high), pixels, width in zip(subdomain.box, subdomain.core, size, overlap, strict=True):
            inside = [p for p in range(low - width, high + width) if 0 <= p < pixels]
            assert list(range(start, stop)) == inside


def test_larger_parts_come_first() -> None:
    assert [s.shape[0] for s in Grid((4, 1)).subdomains((10, 3))] == [3, 3, 2, 2]


@pytest.mark.parametrize(
    ("parts", "overlap", "message"),
    [
        ((2, 0), 0, "a grid needs at least 1 part along each axis, got 2x0"),
        ((), 0, "a grid needs at least 1 part along each axis, got "),
        ((-1, 2), 0, "a grid needs at least 1 part along each axis, got -1x2"),
        ((2, 3), -1, "overlap should be 0 pixels or more, got -1x-1"),
        ((2, 3), (1, -2), "overlap should be 0 pixels or more, got 1x-2"),
        ((2, 3), (1, 1, 1), "overlap 1x1x1 has 3 axes, but grid 2x3 has 2; give one number, or one per axis"),
    ],
)
def test_bad_grid(parts: tuple[int, ...], overlap: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(DecompositionError) as error:
        Grid(parts, overlap=overlap)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((8, 2), "grid 2x3 is finer than the images, 8x2 pixels; use a coarser grid"),
        ((8, 8, 8), "grid 2x3 has 2 axes, but the images are 8x8x8; give one number of parts per axis"),
    ],
)
def test_image_that_does_not_fit(size: tuple[int, ...], message: str) -> None:
    with pytest.raises(DecompositionError) as error:
        Grid((2, 3)).subdomains(size)
    assert str(error.value) == message


def test_repr_is_the_call() -> None:
    assert repr(Grid((2, 3), overlap=1)) == "Grid((2, 3), overlap=(1, 1))"

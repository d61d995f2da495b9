"""Decompositions into subdomains of any shape: what they cover, and what is put together again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddcnn.config import Config
from ddcnn.decomposition import (
    Boxes,
    Decomposition,
    Grid,
    Interleaved,
    Rings,
    Triangles,
    Voronoi,
    WithCoarse,
    build_decomposition,
    cut,
    reassemble,
)
from ddcnn.decomposition.with_coarse import area_average
from ddcnn.errors import DdcnnError, DecompositionError

PARTITIONS: dict[str, Callable[[int], Decomposition]] = {
    "grid": lambda axes: Grid((2, 3, 2)[:axes]),
    "interleaved": lambda axes: Interleaved((2, 3, 2)[:axes]),
    "triangles": lambda axes: Triangles(),
    "cells of triangles": lambda axes: Triangles((1, 2)),
    "voronoi": lambda axes: Voronoi(3, seed=1),
    "rings": lambda axes: Rings(2),
    "rings and sectors": lambda axes: Rings((2, 3)),
    "half planes": lambda axes: Rings((1, 2)),
}


def images_of(size: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(1, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).to(dtype)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_each_pixel_has_one_owner_and_goes_back_to_its_place(data: st.DataObject) -> None:
    size = tuple(data.draw(st.lists(st.integers(6, 11), min_size=2, max_size=3)))
    decomposition = PARTITIONS[data.draw(st.sampled_from(sorted(PARTITIONS)))](len(size))
    if data.draw(st.booleans()):
        decomposition = WithCoarse(decomposition, data.draw(st.sampled_from(["auto", (5,)])))
    subdomains = decomposition.subdomains(size)
    assert [s.index for s in subdomains] == list(range(len(decomposition)))
    fine = subdomains[: decomposition.fine]
    assert bool((torch.stack([s.seen() for s in fine]).sum(0) == 1).all())
    images = images_of(size)
    parts = cut(images, subdomains)
    assert [tuple(part.shape[2:]) for part in parts] == [s.shape for s in subdomains]
    assert torch.equal(reassemble(parts, subdomains).to(images.dtype), images)
    for s, part in zip(fine, parts, strict=False):
        inside = torch.ones(s.shape, dtype=torch.bool) if s.inside is None else s.inside
        assert int(inside.sum()) == int(s.seen().sum())
        assert torch.equal(part[..., inside].flatten(), images[..., s.seen()].flatten())  # in the same order


@given(st.integers(1, 5), st.floats(0.1, 1), st.tuples(st.integers(3, 12), st.integers(3, 12)))
def test_boxes_give_back_what_they_cover(count: int, share: float, size: tuple[int, int]) -> None:
    subdomains = Boxes(count, size=share, seed=2).subdomains(size)
    images = images_of(size)
    covered = torch.stack([s.seen() for s in subdomains]).any(0)
    assert torch.equal(reassemble(cut(images, subdomains), subdomains), images * covered)
    own = [torch.full((1, 1, *s.shape), s.index + 1) for s in subdomains]
    first = torch.stack([(s.index + 1) * s.seen() for s in subdomains])
    first[first == 0] = 99
    assert torch.equal(reassemble(own, subdomains)[0, 0] * covered, first.min(0).values * covered)


def test_given_boxes() -> None:
    given = [[[0, 4], [2, 8]], [[3, 6], [0, 8]]]
    as_text = Boxes("0-4x2-8+3-6x0-8").subdomains((6, 8))
    assert [s.box for s in Boxes(given).subdomains((6, 8))] == [s.box for s in as_text]
    assert [[list(axis) for axis in s.box] for s in as_text] == given


def test_shapes_are_the_same_everywhere() -> None:
    """Geometry is integers and a generator that is the same in every Python: these numbers may never change."""
    voronoi = [int(s.seen().sum()) for s in Voronoi(6).subdomains((28, 28))]
    assert voronoi == [154, 154, 114, 130, 131, 101]
    assert [s.box for s in Boxes(2).subdomains((28, 28))] == [((12, 26), (11, 25)), ((6, 20), (3, 17))]


def test_voronoi_cells_are_of_like_size_whatever_the_image() -> None:
    for size in ((28, 28), (90, 33), (12, 20, 16)):
        pixels = [int(s.seen().sum()) for s in Voronoi(6).subdomains(size)]
        assert max(pixels) < 2 * min(pixels)
    with_other_seed = [s.box for s in Voronoi(6, seed=1).subdomains((28, 28))]
    assert with_other_seed != [s.box for s in Voronoi(6).subdomains((28, 28))]


@pytest.mark.parametrize("sectors", [2, 3, 4, 5, 8])
def test_sectors_are_where_the_angle_says(sectors: int) -> None:
    owners = Rings((1, sectors)).owners((21, 31)).numpy()
    y, x = np.meshgrid((np.arange(21) - 10) * 31, (np.arange(31) - 15) * 21, indexing="ij")
    turn = np.arctan2(y, x) % (2 * np.pi) / (2 * np.pi) * sectors
    clear = np.abs(turn - turn.round()) > 1e-6
    np.testing.assert_array_equal(owners[clear], np.floor(turn)[clear])


def test_rings_have_as_many_pixels_and_the_inner_ones_are_nearer() -> None:
    owners = Rings(4).owners((40, 60)).numpy()
    assert np.ptp(np.bincount(owners.ravel())) <= 16  # equal distances stay together
    y, x = np.meshgrid((2 * np.arange(40) - 39) / 40, (2 * np.arange(60) - 59) / 60, indexing="ij")
    distance = np.hypot(y, x)
    for ring in range(3):
        assert distance[owners == ring].max() <= distance[owners == ring + 1].min()


def test_volumes_have_prisms_and_tubes() -> None:
    for decomposition in (Triangles(), Rings((2, 2))):
        owners = decomposition.owners((5, 8, 10))
        assert bool((owners == owners[:1]).all())
        assert torch.equal(owners[0], decomposition.owners((8, 10)))
    cells = Triangles((2, 1, 1)).owners((4, 6, 6))
    assert torch.equal(cells[3] - cells[0], torch.full((6, 6), 4))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_area_average_is_exact(data: st.DataObject) -> None:
    """Against plain counting: each pixel is split into as many equal parts as the new axis has pixels."""
    size = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3)))
    new = tuple(data.draw(st.integers(1, pixels)) for pixels in size)
    images = images_of(size)
    fine = images.numpy().astype(np.int64)
    for axis, (pixels, n) in enumerate(zip(size, new, strict=True), start=2):
        fine = np.repeat(fine, n, axis)
        fine = np.moveaxis(
            np.moveaxis(fine, axis, -1).reshape(*np.moveaxis(fine, axis, -1).shape[:-1], n, pixels).sum(-1), -1, axis
        )
    expected = torch.from_numpy(fine / math.prod(size))
    found = area_average(images, new)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1.2e-7, atol=0)
    scrambled = images.transpose(0, 1).contiguous().transpose(0, 1)  # otherwise in memory, and one by one
    for dtype in (torch.uint8, torch.float32):
        together = area_average(images.to(dtype), new)
        assert torch.equal(area_average(scrambled.to(dtype), new), together)
        assert torch.equal(torch.cat([area_average(one[None].to(dtype), new) for one in images]), together)


def test_area_average_of_large_images_is_exact() -> None:
    images = torch.full((1, 1, 4096, 32), 255, dtype=torch.uint8)  # sums that float32 does not hold
    images[..., ::2] = 254
    assert bool((area_average(images, (1, 2)) == 254.5).all())


def test_area_average_is_adaptive_average_pooling_where_sizes_divide(seeded: None) -> None:
    images = torch.rand(2, 3, 12, 20)
    torch.testing.assert_close(area_average(images, (4, 5)), F.adaptive_avg_pool2d(images, (4, 5)))
    volumes = torch.rand(2, 1, 6, 8, 10)
    torch.testing.assert_close(area_average(volumes, (3, 2, 5)), F.adaptive_avg_pool3d(volumes, (3, 2, 5)))
    torch.testing.assert_close(area_average(images, (5, 7)).mean((2, 3)), images.mean((2, 3)))


def test_the_coarse_level_has_a_sensible_size() -> None:
    def size(decomposition: Decomposition, image: tuple[int, ...]) -> tuple[int, ...]:
        return WithCoarse(decomposition).subdomains(image)[-1].shape

    assert size(Grid((2, 2)), (28, 30)) == (14, 15)
    assert size(Grid((3, 3), overlap=1), (32, 32)) == (12, 12)  # of the first subimage, with its overlap
    assert size(Interleaved((2, 2)), (28, 28)) == (14, 14)
    assert size(Voronoi(4), (28, 28)) == (14, 14)
    assert size(Boxes(9, size=0.9), (27, 30)) == (9, 10)
    three = WithCoarse(WithCoarse(Grid((2, 2)), (8, 8)), (4,))
    assert (len(three), three.fine, three.layout) == (6, 4, (2, 2))
    assert [s.shape for s in three.subdomains((16, 16))[4:]] == [(8, 8), (4, 4)]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("interleaved:2", (8, 8), "interleaved needs 2 or 3 numbers, each 1 or more, got 2; write for example"),
        ("interleaved:2x9", (8, 8), "interleaved 2x9 leaves subdomains of images of 8x8 pixels empty; use smaller"),
        ("interleaved:2x2", (8, 8, 8), "interleaved 2x2 has 2 axes, but the images are 8x8x8; give one number per"),
        ("interleaved:300x300", (999, 999), "interleaved 300x300 has too many subdomains, at most 65536 are possible"),
        ("voronoi:2x2", (8, 8), "voronoi needs 1 number, each 1 or more, got 2x2; write for example voronoi:6"),
        ("voronoi:0", (8, 8), "voronoi needs 1 number, each 1 or more, got 0; write"),
        ("voronoi:90", (8, 8), "voronoi90 leaves subdomain .* of images of 8x8 pixels empty; use fewer subdomains, or"),
        ("voronoi:6,sed=3", (8, 8), "'voronoi' cannot be built with options .* unexpected keyword argument 'sed'"),
        ("voronoi:6,seed=x", (8, 8), "voronoi: seed should be a whole number, 0 or more, got 'x'"),
        ("voronoi:60000", (999, 999, 999), "voronoi60000 is not possible on images of 999x999x999 pixels, which are"),
        ("triangles:8x8", (8, 8), "triangles8x8 leaves subdomain 1 of images of 8x8 pixels empty"),
        ("triangles:2x2x2", (8, 8), "triangles 2x2x2 has 3 axes, but the images are 8x8; give one number of cells"),
        ("rings:5", (4, 4), "rings5 leaves subdomain . of images of 4x4 pixels empty; use fewer"),
        ("sectors:1", (8, 8), "sectors needs 2 or more, got 1; write for example sectors:6"),
        ("boxes:4-2x0-8", (8, 8), "boxes: '4-2x0-8' is no box with start < stop along each axis; write for example"),
        ("boxes:0-4x0-9", (8, 8), "box 0, 0-4x0-9, does not lie in images of 8x8 pixels; give start-stop per axis"),
        ("boxes:0-4", (8, 8), "box 0, 0-4, does not lie in images of 8x8 pixels"),
        ("boxes:3,size=1.5", (8, 8), "boxes: size should be above 0 and at most 1, got 1.5"),
        ("boxes:99999", (8, 8), "99999 boxes are too many, at most 65536 are possible"),
    ],
)
def test_what_is_no_decomposition(name: str, size: tuple[int, ...], message: str) -> None:
    config = Config.parse({"decomposition": {"name": name}})
    with pytest.raises(DdcnnError, match=f"^(decomposition )?{message}") as caught:
        build_decomposition(config.decomposition).subdomains(size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("coarse", "message"),
    [
        ("9x9", "coarse level 9x9 is larger than the images, 8x8 pixels; use a smaller size"),
        ("4x4x4", "coarse level 4x4x4 has 3 axes, but the images are 8x8; give one number of pixels per axis"),
    ],
)
def test_what_is_no_coarse_level(coarse: str, message: str) -> None:
    config = Config.parse({"decomposition": {"coarse": coarse}})
    with pytest.raises(DecompositionError, match=f"^{message}$"):
        build_decomposition(config.decomposition).subdomains((8, 8))

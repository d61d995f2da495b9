"""Pixels of subdomains are those that they can come to see, and give the same subimages as whole images do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddcnn.data.augmentation import Augmentation, moved
from ddcnn.data.subdomain_pixels import Reach, SubdomainPixels
from ddcnn.decomposition import Grid, Subdomain, cut


@pytest.mark.parametrize(
    ("size", "grid", "overlap"), [((7, 9), (2, 3), (1, 0)), ((4, 5, 6), (2, 1, 2), (0,)), ((6, 6), (1, 2), (2,))]
)
@pytest.mark.parametrize("augmentation", [None, Augmentation((1,), 2), Augmentation((), 3), Augmentation((0, 1), 0)])
def test_as_from_whole_images(
    size: tuple[int, ...], grid: tuple[int, ...], overlap: tuple[int, ...], augmentation: Augmentation | None
) -> None:
    images = torch.randint(0, 256, (20, 2, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    every = Grid(grid, overlap=overlap).subdomains(size)
    chosen = tuple(every[-2:])
    indices, arrays = SubdomainPixels.of(images, chosen, augmentation).pack()
    pixels = SubdomainPixels.unpack(indices, arrays, images.shape)
    samples = torch.tensor([3, 17, 0, 3, 9])
    moves = None
    if augmentation is not None:
        moves = augmentation.draw(samples=20, axes=len(size), seed=5, epoch=1)[samples]
    got = pixels.take(samples, chosen[::-1], augmentation, moves)
    expected = _expected(images[samples], moves, chosen[::-1])
    assert all(torch.equal(a, b) for a, b in zip(got.parts, expected, strict=True))
    assert torch.equal(pixels.take(samples, chosen).parts[0], cut(images[samples], chosen)[0])


def _expected(images: Tensor, moves: Tensor | None, subdomains: tuple[Subdomain, ...]) -> list[Tensor]:
    return cut(images if moves is None else moved(images, moves), subdomains)


def test_no_more_than_is_needed() -> None:
    images = torch.zeros(3, 1, 8, 8)
    first = Grid((2, 4)).subdomains((8, 8))[0]  # rows 0..3, columns 0..1
    assert Reach.of(images, first, None).pixels.shape == (3, 1, 4, 2)
    assert Reach.of(images, first, Augmentation((), 1)).pixels.shape == (3, 1, 5, 3)
    mirrored = Reach.of(images, first, Augmentation((1,), 1))  # columns 0..2, and 5..7 as their mirror image
    assert [axis.tolist() for axis in mirrored.positions] == [[0, 1, 2, 3, 4], [0, 1, 2, 5, 6, 7]]


def test_there_is_no_whole_image() -> None:
    images = torch.zeros(3, 1, 4, 4)
    pixels = SubdomainPixels.of(images, Grid((2, 2)).subdomains((4, 4))[1:2], None)
    assert (len(pixels), pixels.ndim, pixels.dtype) == (3, 4, torch.float32)
    with pytest.raises(AssertionError, match="image 2 is not here"):
        pixels.image(2)

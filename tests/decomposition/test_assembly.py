"""Cut and reassemble, against independent numpy indexing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcnn.decomposition import Grid, cut, reassemble
from ddcnn.errors import DecompositionError


@given(st.data())
def test_cut_and_reassemble(data: st.DataObject) -> None:
    axes = data.draw(st.integers(2, 3))
    parts = [data.draw(st.integers(1, 3)) for _ in range(axes)]
    size = [data.draw(st.integers(n, 7)) for n in parts]
    overlap = [data.draw(st.integers(0, 3)) for _ in range(axes)]
    image = np.arange(2 * 3 * np.prod(size)).reshape(2, 3, *size)

    subdomains = Grid(parts, overlap=overlap).subdomains(size)
    subimages = cut(torch.from_numpy(image), subdomains)

    for subdomain, subimage in zip(subdomains, subimages, strict=True):
        expected = image
        for axis, (start, stop) in enumerate(subdomain.box):
            expected = np.take(expected, range(start, stop), axis=axis + 2)
        assert np.array_equal(subimage.numpy(), expected)
    assert np.array_equal(reassemble(subimages, subdomains).numpy(), image)


def test_each_pixel_comes_from_its_owner() -> None:
    subdomains = Grid((1, 3), overlap=2).subdomains((2, 9))
    owned = [torch.full((1, 1, *s.shape), s.index) for s in subdomains]
    assert reassemble(owned, subdomains)[0, 0].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 2


def test_subimages_are_views() -> None:
    image = torch.zeros(2, 3, 5, 7)
    for subimage in cut(image, Grid((2, 2), overlap=1).subdomains((5, 7))):
        assert subimage.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()


def test_gradient_of_a_pixel_counts_its_subdomains() -> None:
    image = torch.zeros(1, 1, 2, 4, requires_grad=True)
    sum(part.sum() for part in cut(image, Grid((1, 2), overlap=1).subdomains((2, 4)))).backward()
    assert image.grad is not None
    assert image.grad[0, 0].tolist() == [[1, 2, 2, 1]] * 2


def test_wrong_number_of_subimages() -> None:
    subdomains = Grid((2, 2)).subdomains((4, 6))
    with pytest.raises(DecompositionError, match=r"^3 subimages do not fit 4 subdomains$"):
        reassemble(cut(torch.zeros(1, 1, 4, 6), subdomains[:3]), subdomains)


def test_wrong_size_of_a_subimage() -> None:
    subdomains = Grid((2, 2)).subdomains((4, 6))
    subimages = cut(torch.zeros(1, 1, 4, 6), subdomains)
    subimages[2] = subimages[2][..., :2]
    with pytest.raises(DecompositionError, match=r"^subdomain 2 has \(2, 3\) pixels, its subimage \(2, 2\)$"):
        reassemble(subimages, subdomains)

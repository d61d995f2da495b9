"""Digests of samples: equal for equal pixels, wherever they are, in a store without reading a pixel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ddcnn.data import Dataset
from ddcnn.data.content import digests
from ddcnn.data.lazy import Lazy
from ddcnn.data.store import Store, Stored, write_store
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError


def _drawn(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_digest_is_the_sha256_of_type_shape_and_pixels(dtype: torch.dtype) -> None:
    images = _drawn((3, 2, 4, 5)).to(dtype)
    for row, image in zip(digests(images), images, strict=True):
        expected = hashlib.sha256(f"{dtype} (2, 4, 5) ".encode() + image.numpy().tobytes()).digest()[:16]
        assert row.tobytes() == expected


def test_images_in_memory_and_those_that_are_read_have_equal_digests() -> None:
    images = _drawn((70, 1, 6, 7))
    lazy = Lazy(images.__getitem__, images.shape, images.dtype)
    assert np.array_equal(digests(images), digests(lazy))
    assert np.array_equal(digests(images), digests(images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)))


@pytest.mark.parametrize("change", ["pixel", "rotated", "black", "swapped", "shape", "type"])
def test_every_change_of_an_image_changes_its_digest_and_no_other(change: str) -> None:
    images = _drawn((5, 1, 6, 6))
    other = images.clone()
    if change == "pixel":
        other[2, 0, 3, 3] ^= 1
    elif change == "rotated":
        other[2] = other[2].rot90(dims=(1, 2))
    elif change == "black":
        other[2] = 0
    elif change == "swapped":
        other[[2, 3]] = other[[3, 2]]
    elif change == "shape":
        other = other.reshape(5, 1, 4, 9)
    else:
        other = other.float()
    same = (digests(images) == digests(other)).all(1).tolist()
    expected = {"swapped": [True, True, False, False, True], "shape": [False] * 5, "type": [False] * 5}
    assert same == expected.get(change, [True, True, False, True, True])


def _store(path: Path, images: torch.Tensor, grid: tuple[int, int] = (2, 2)) -> Stored:
    dataset = Dataset("d", images, torch.arange(len(images)) % 2, ("a", "b"))
    write_store(dataset, path, Grid(grid), workers=1)
    return Stored(Store(path))


def test_of_a_store_no_pixel_is_read_and_only_what_changed_differs(tmp_path: Path) -> None:
    images = _drawn((7, 1, 8, 9))
    other = images.clone()
    other[4, 0, 7, 8] ^= 1  # in the last subdomain
    one, two = _store(tmp_path / "1", images), _store(tmp_path / "2", other)
    for shard in (tmp_path / "1" / "subdomains").rglob("c/**/*"):
        if shard.is_file():
            shard.unlink()
    assert (digests(one) == digests(two)).all(1).tolist() == [True] * 4 + [False] + [True] * 2
    assert len(np.unique(digests(one), axis=0)) == 7
    assert np.array_equal(digests(one), digests(images))  # of whatever source and grid
    assert np.array_equal(digests(one), digests(_store(tmp_path / "3", images, (1, 2))))


def test_a_store_of_version_1_knows_stores_of_its_kind_only() -> None:
    store = Stored(Store(Path(__file__).with_name("store") / "version-1"))
    said = json.loads((store.store.path.parent / "version-1.json").read_text())
    assert digests(store).tobytes().hex() == said["digests"]
    assert not (digests(store) == digests(store[torch.arange(4)])).all(1).any()


def test_checksums_that_are_gone_truncated_or_of_other_chunks_are_named(tmp_path: Path) -> None:
    images = _store(tmp_path / "1", torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    other = _store(tmp_path / "2", torch.ones(4, 1, 8, 8, dtype=torch.uint8))
    file = tmp_path / "1" / "sha256" / "c" / "0" / "0" / "0"
    for n in range(4):  # files of another store in this one, such as rsync leaves half-way
        shard = f"subdomains/{n}/c/0/0/0/0"
        (tmp_path / "1" / shard).write_bytes((other.store.path / shard).read_bytes())
    file.write_bytes((other.store.path / "sha256/c/0/0/0").read_bytes())
    with pytest.raises(DataError, match="sha256 is damaged: its SHA-256 differs; run the same ddcnn data prepare"):
        digests(images)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{file} is truncated; .* mend"):
        digests(images)
    file.unlink()
    with pytest.raises(DataError, match=f"{file} cannot be read: No such file"):
        digests(images)

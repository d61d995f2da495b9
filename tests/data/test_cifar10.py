from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, cifar10, open_data
from ddcnn.errors import DataError

N = 20  # records per file instead of 10,000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the layout of CIFAR-10 with few, random records."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in cifar10.MD5:
        records = rng.integers(0, 256, (N, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(N) % 10
        _write(folder / name, records, monkeypatch)
    monkeypatch.setattr(cifar10, "_RECORDS", N)
    return folder


def _write(path: Path, records: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(records.tobytes())
    monkeypatch.setitem(cifar10.MD5, path.name, hashlib.md5(records.tobytes()).hexdigest())


def _open(folder: Path) -> Dataset:
    return open_data(DataConfig(source="cifar10", directory=folder, offline=True))


@pytest.mark.parametrize("up", [0, 1])
def test_records_become_images(folder: Path, up: int) -> None:
    dataset = _open([folder, folder.parent][up])
    assert dataset.images.shape == (6 * N, 3, 32, 32)
    assert dataset.labels.tolist() == list(range(10)) * 12
    assert dataset.official_test is not None
    assert dataset.official_test.tolist() == list(range(5 * N, 6 * N))
    assert (dataset.flip_axes, dataset.shift) == ((1,), 2)
    raw = (folder / "data_batch_2.bin").read_bytes()
    for record, channel, row, column in [(0, 0, 0, 0), (3, 2, 5, 31), (19, 1, 31, 0)]:
        byte = raw[record * 3073 + 1 + channel * 1024 + row * 32 + column]
        assert dataset.images[N + record, channel, row, column] == byte


def test_absent_and_offline_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"get https://www\.cs\.toronto\.edu/.*cifar-10-binary\.tar\.gz \(md5 c32a1d4a"):
        _open(tmp_path)


def test_a_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "data_batch_3.bin"
    raw = bytearray(path.read_bytes())
    raw[5000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"data_batch_3\.bin is damaged: its MD5 should be .*remove .* to download it"):
        _open(folder)


def test_a_truncated_or_missing_file_is_named(folder: Path) -> None:
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"test_batch\.bin should hold {N * 3073} bytes, got {N * 3073 - 1}"):
        _open(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"test_batch\.bin is missing"):
        _open(folder)


def test_labels_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder / "data_batch_1.bin", np.full((N, 3073), 10, np.uint8), monkeypatch)
    with pytest.raises(DataError, match=r"data_batch_1\.bin should hold labels in 0\.\.9, got 10"):
        _open(folder)


@pytest.mark.shared
def test_the_published_records(shared: Path, tmp_path: Path) -> None:
    source = shared / "cifar10"
    md5 = json.loads((source / "md5.json").read_text())
    assert {f"{name}.bin": value for name, value in md5.items()} == cifar10.MD5
    labels = np.concatenate([np.fromfile(source / f"y_{part}.u8", np.uint8) for part in ("train", "test")])
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for i, name in enumerate(md5):
        with Image.open(source / f"{name}.webp") as mosaic:  # 100 x 100 images
            tiles = np.asarray(mosaic.convert("RGB")).reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3)
        part = labels[i * 10_000 : (i + 1) * 10_000, None]
        np.concatenate([part, tiles.reshape(10_000, 3072)], 1).tofile(folder / f"{name}.bin")
    dataset = _open(tmp_path)
    assert dataset.images.shape == (60_000, 3, 32, 32)
    assert dataset.labels.bincount().tolist() == [6_000] * 10
    np.testing.assert_array_equal(dataset.labels.numpy(), labels)
    assert torch.equal(dataset.images[50_000:], torch.from_numpy(tiles.reshape(10_000, 3, 32, 32)))

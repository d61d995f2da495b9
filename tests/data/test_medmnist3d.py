from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, array_file, make_split, open_data
from ddcnn.errors import DataError

COUNTS = {"train": 8, "val": 4, "test": 6}


def _arrays(**changes: object) -> dict[str, object]:
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for part, count in COUNTS.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 4, 5, 6), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return arrays | changes


def _open(path: Path, arrays: dict[str, object]) -> Dataset:
    np.savez_compressed(path, **{k: np.asarray(v) for k, v in arrays.items() if v is not None})
    return open_data(DataConfig(source=f"medmnist3d:{path}"))


def test_parts_are_respected(tmp_path: Path) -> None:
    arrays = _arrays()
    dataset = _open(tmp_path / "adrenalmnist3d_64.npz", arrays)
    assert dataset.classes == ("normal", "hyperplasia")
    split = make_split(dataset, DataConfig(), seed=3)
    for name, part in (("train", split.train), ("val", split.validation), ("test", split.test)):
        np.testing.assert_array_equal(dataset.images[part][:, 0].numpy(), arrays[f"{name}_images"])
        np.testing.assert_array_equal(dataset.labels[part][:, None].numpy(), arrays[f"{name}_labels"])


def test_another_validation_part_may_be_asked_for(tmp_path: Path) -> None:
    dataset = _open(tmp_path / "x.npz", _arrays())
    assert dataset.classes == ("0", "1")
    split = make_split(dataset, DataConfig(validation=0.5), seed=0)
    assert (len(split.train), len(split.validation), split.test.tolist()) == (6, 6, list(range(12, 18)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, "but val_labels is missing; other files are read as npz:"),
        ({"train_images": np.zeros((8, 4, 5), np.uint8)}, r"train_images should be uint8 volumes \(n, D, H, W\), got"),
        ({"test_images": np.zeros((6, 4, 5, 6), np.float32)}, "test_images should be uint8 volumes .* got float32"),
        ({"val_images": np.zeros((4, 4, 5, 7), np.uint8)}, "val_images and train_images should have one size"),
        ({"val_labels": np.zeros((3, 1), np.uint8)}, r"should be integers of shape \(4, 1\), got uint8 \(3, 1\)"),
        ({"val_labels": np.zeros((4, 1), np.float32)}, "val_labels should be integers"),
        ({"train_labels": np.full((8, 1), 7, np.uint8)}, r"got 3 different: 0, 1, 7; number them"),
    ],
)  # fmt: skip
def test_what_is_not_as_published_is_explained(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _open(tmp_path / "x.npz", _arrays(**changes))


def test_an_archive_that_declares_too_much_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_file, "_MOST", 2**20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", bytes(2**21))
    with pytest.raises(DataError, match=r"x\.npz declares 2,097,152 bytes, more than the 1,048,576 that are read"):
        open_data(DataConfig(source=f"medmnist3d:{tmp_path / 'x.npz'}"))


@pytest.mark.shared
def test_adrenalmnist3d(shared: Path) -> None:
    dataset = open_data(DataConfig(source=f"medmnist3d:{shared / 'adrenalmnist3d_64.npz'}"))
    split = make_split(dataset, DataConfig(), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (1188, 98, 298)
    assert dataset.image_size == (64, 64, 64)

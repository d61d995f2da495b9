from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data
from ddcnn.errors import DataError

LABELS = np.array([0, 1, 1, 0])


def _open(path: Path, **arrays: object) -> Dataset:
    if arrays:
        np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
    return open_data(DataConfig(source=f"npz:{path}"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my data.npz"


@pytest.mark.parametrize(
    ("shape", "layout", "axes"),
    [
        ((4, 5, 6), None, (0, None, 1, 2)),
        ((4, 5, 6, 3), None, (0, 3, 1, 2)),
        ((4, 5, 6, 1), None, (0, 3, 1, 2)),
        ((4, 5, 6, 7), None, (0, None, 1, 2, 3)),
        ((4, 5, 6, 7, 2), None, (0, 4, 1, 2, 3)),
        ((4, 3, 5, 6), "NCHW", (0, 1, 2, 3)),
        ((4, 5, 6, 3), "ndhw", (0, None, 1, 2, 3)),
        ((4, 2, 5, 6, 7), "NCDHW", (0, 1, 2, 3, 4)),
        ((4, 5, 6), "NWH", (0, None, 2, 1)),
    ],
)
def test_layout(path: Path, shape: tuple[int, ...], layout: str | None, axes: tuple[int | None, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    extra = {} if layout is None else {"layout": layout}
    expected = images.transpose([axis for axis in axes if axis is not None])
    expected = expected[:, None] if axes[1] is None else expected
    dataset = _open(path, images=images, labels=LABELS, **extra)
    np.testing.assert_array_equal(dataset.images.numpy(), expected)
    assert dataset.classes == ("0", "1")
    assert dataset.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 255], np.int64, torch.uint8),
        ([0, 256], np.int64, torch.float32),
        ([-1000, 3000], np.int16, torch.float32),
        ([0.5, 1.0], np.float64, torch.float32),
        ([0.5, 1.0], np.float16, torch.float32),
        ([0, 1], np.bool_, torch.uint8),
    ],
)
def test_types(path: Path, values: list[float], dtype: type, expected: torch.dtype) -> None:
    images = np.array(values * 12, dtype=dtype).reshape(4, 2, 3)
    dataset = _open(path, images=images, labels=LABELS)
    assert dataset.images.dtype == expected
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), images)


def test_medmnist_keys(path: Path) -> None:
    parts = {"train": [0, 1, 0, 1], "val": [1, 0], "test": [1]}
    arrays = {f"{name}_images": np.full((len(v), 5, 6, 7), len(v), np.uint8) for name, v in parts.items()}
    arrays |= {f"{name}_labels": np.array(v, np.uint8)[:, None] for name, v in parts.items()}
    dataset = _open(path, **arrays)
    assert dataset.images.shape == (7, 1, 5, 6, 7)
    assert dataset.images[:, 0, 0, 0, 0].tolist() == [4, 4, 4, 4, 2, 2, 1]
    assert dataset.labels.tolist() == [0, 1, 0, 1, 1, 0, 1]
    assert dataset.official_test is not None
    assert dataset.official_test.tolist() == [6]


def test_labels_as_strings(path: Path) -> None:
    images = np.zeros((4, 2, 3), np.uint8)
    dataset = _open(path, images=images, labels=["dog", "cat", "cat", "dog"])
    assert (dataset.classes, dataset.labels.tolist()) == (("cat", "dog"), [1, 0, 0, 1])
    dataset = _open(path, images=images, labels=["dog", "cat", "cat", "dog"], classes=["dog", "cat"])
    assert (dataset.classes, dataset.labels.tolist()) == (("dog", "cat"), [0, 1, 1, 0])
    with pytest.raises(DataError, match="the label 'cat' is not one of the classes dog, cow"):
        _open(path, images=images, labels=["dog", "cat", "cat", "dog"], classes=["dog", "cow"])


IMAGES = np.zeros((4, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": IMAGES}, r"should have the keys images and labels, or train_images, .*; got pixels"),
        ({"test_images": IMAGES, "test_labels": LABELS}, "should have the keys images and labels"),
        ({"images": IMAGES}, "has the key images but not labels; got images"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "has 4 images but 3 labels"),
        ({"images": 5, "labels": LABELS}, "has 0 images but 4 labels"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "integers from 0 or strings, got float64; use astype"),
        ({"images": IMAGES, "labels": np.eye(4)}, r"labels should have shape \(n,\) or \(n, 1\), got \(4, 4\)"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"labels should lie in 0\.\.0, got -1\.\.0|at least 2 classes"),
        ({"images": IMAGES, "labels": LABELS * 2}, "class '1' has no image"),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a"]}, "at least 2 classes are needed, got 1"),
        ({"images": IMAGES + np.nan, "labels": LABELS}, "image 0 holds NaN or infinity"),
        ({"images": np.full((4, 2, 3), 1e300), "labels": LABELS}, "image 0 holds NaN or infinity"),
        ({"images": IMAGES[:, 0], "labels": LABELS}, r"images should have shape \(n, H, W\).*, got \(4, 3\)"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "images should be numbers, got complex128"),
        ({"images": IMAGES, "labels": LABELS, "layout": "NHWC"}, r"layout NHWC has 4 axes, but .* \(4, 2, 3\)"),
        ({"images": IMAGES, "labels": LABELS, "layout": "NXY"}, "layout should be N and then H, W .*, got 'NXY'"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no images"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:, :1], "test_labels": LABELS},
            r"test_images and train_images should have one shape, got \(1, 3\) and \(2, 3\)",
        ),
    ],
)
def test_wrong_arrays_are_explained(path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _open(path, **arrays)


def test_objects_are_not_unpickled(path: Path) -> None:
    np.savez(path, images=np.zeros((2, 2, 2)), labels=np.array(["a", 1], dtype=object))
    with pytest.raises(DataError, match="arrays of Python objects are not read, use a numeric or string type"):
        _open(path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "npy", "folder"])
def test_damaged_files_are_named(path: Path, damage: str) -> None:
    np.savez(path, images=IMAGES + 1, labels=LABELS)
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[raw.index((IMAGES + 1).tobytes())] ^= 1
        path.write_bytes(raw)
    elif damage == "text":
        path.write_text("hello")
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, IMAGES)
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(DataError, match=r"my data\.npz (is not an \.npz file, or it is truncated|cannot be read)"):
        _open(path)


@pytest.mark.shared
def test_adrenalmnist3d(shared: Path) -> None:
    dataset = _open(shared / "adrenalmnist3d_64.npz")
    assert dataset.images.shape == (1188 + 98 + 298, 1, 64, 64, 64)
    assert dataset.images.dtype == torch.uint8
    assert dataset.official_test is not None
    assert len(dataset.official_test) == 298
    zeros = float((dataset.labels[dataset.official_test] == 0).float().mean())
    assert zeros == pytest.approx(0.77, abs=0.005)

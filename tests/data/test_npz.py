from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data
from ddcnn.data.lazy import Lazy
from ddcnn.data.sources import open_lazily
from ddcnn.errors import DataError

Save = Callable[..., None]
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


def test_bytes_are_strings(path: Path) -> None:
    images = np.zeros((4, 2, 3), np.uint8)
    dataset = _open(path, images=images, labels=np.array([b"dog", "kø".encode(), b"dog", b"dog"]))
    assert (dataset.classes, dataset.labels.tolist()) == (("dog", "kø"), [0, 1, 0, 0])
    assert _open(path, images=images, labels=LABELS, classes=np.array([b"dog", b"cat"])).classes == ("dog", "cat")


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
        (
            {"images": IMAGES, "labels": np.array([0, 1, np.nan, np.nan])},
            "NaN, of which there are 2, is no class",
        ),
        ({"images": IMAGES, "labels": np.array([0, 0.5, 1, 1])}, "0.5 is no number of a class: give classes"),
        (
            {"images": IMAGES, "labels": np.eye(4)},
            r"labels should have shape \(n,\) or \(n, 1\), got \(4, 4\); these are one-hot: give labels\.argmax",
        ),
        ({"images": IMAGES, "labels": LABELS - 1}, r"got 2 different: -1, 0; leave out images whose label is neg"),
        ({"images": IMAGES, "labels": LABELS * 2}, r"got 2 different: 0, 2; number them with numpy\.unique"),
        ({"images": IMAGES, "labels": LABELS * 2, "classes": list("abc")}, "class 'b' has no image"),
        ({"images": IMAGES, "labels": LABELS + 1}, "got 2 different: 1, 2; they count from 1: give labels - 1"),
        (
            {"images": IMAGES, "labels": LABELS + 1, "classes": ["a", "b"]},
            r"in 0\.\.1, got 1\.\.2; they count from 1: give",
        ),
        (
            {"images": IMAGES, "labels": LABELS * 255},
            "0, 255; 255 is what masks call void, no class at all: leave these",
        ),
        ({"images": IMAGES, "labels": LABELS * 2**31}, "got 2147483648; number the classes from 0"),
        ({"images": IMAGES, "labels": LABELS * (2**31 - 1)}, "got 2 different: 0, 2147483647; number them"),
        ({"images": IMAGES, "labels": LABELS.astype(np.uint64) * 2**63}, "got 9223372036854775808; number the classes"),
        (
            {"images": IMAGES, "labels": np.eye(4)[:, [0, 1, 1, 0]][:, :3]},
            r"or \(n, 1\), got \(4, 3\); one class per image",
        ),
        ({"images": IMAGES, "labels": np.array([b"\xff", b"a", b"a", b"a"])}, "bytes that are no UTF-8; give strings"),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a", "a"]}, "2 classes are called 'a'; give each a name"),
        (
            {"images": IMAGES, "labels": LABELS, "classes": ["a", " "]},
            "the class ' ' holds no visible character; rename",
        ),
        (
            {"images": np.zeros((4, 0, 3), np.float32), "labels": LABELS},
            r"should have pixels, got shape \(4, 1, 0, 3\)",
        ),
        (
            {"images": np.zeros((4, 3, 8, 9)), "labels": LABELS},
            r"may have their channels first; .* layout='NCHW', or layout",
        ),
        ({"images": np.zeros((4, 1, 8, 9)), "labels": LABELS}, r"numpy\.savez\(\.\.\., layout='NCHW'\)"),
        (
            {"images": np.zeros((4, 1, 8, 9, 7)), "labels": LABELS},
            r"layout='NCDHW', or layout='NDHWC' if axis 1 is the depth",
        ),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a"]}, "at least 2 classes are needed, got 1"),
        ({"images": IMAGES + np.nan, "labels": LABELS}, "image 0 holds NaN or infinity"),
        (
            {"images": np.full((4, 2, 3), 1e300), "labels": LABELS},
            r"image 0 holds values up to 1e\+300, too large for float32; scale them",
        ),
        (
            {
                "train_images": np.ones((4, 2, 3)),
                "train_labels": LABELS,
                "test_images": np.array([1, 2, -1e300, 3])[:, None, None] * np.ones((4, 2, 3)),
                "test_labels": LABELS,
            },
            r"image 6 holds values up to -1e\+300, too large for float32",
        ),
        ({"images": np.where(np.eye(4, 3) > 0, 1e300, np.inf)[:, None], "labels": LABELS}, "0 holds NaN or infinity"),
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


@pytest.mark.parametrize(
    ("key", "meant"), [("group", "groups"), ("Groups", "groups"), ("class", "classes"), ("Layout", "layout")]
)
def test_a_key_that_is_almost_one_that_counts(path: Path, key: str, meant: str) -> None:
    with pytest.raises(DataError, match=f"the key '{key}' is not known: did you mean '{meant}'"):
        _open(path, images=np.zeros((4, 5, 6), np.uint8), labels=LABELS, **{key: LABELS})
    found = _open(path, images=np.zeros((4, 5, 6), np.uint8), labels=LABELS, groups=LABELS, ages=LABELS)
    assert found.notes == ("keys that are not used: ages",)
    assert found.groups is not None


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
    with pytest.raises(DataError, match=r"my data\.npz (is not an \.npz file|cannot be read)"):
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


@pytest.mark.parametrize("cause", ["pipe", "permission"])
def test_the_true_cause_is_named(tmp_path: Path, cause: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        Path(base).chmod(0o755)
        path = Path(base) / "x.npz"
        np.savez(path, images=IMAGES, labels=LABELS)
        if cause == "pipe":
            path.unlink()
            os.mkfifo(path)
        else:
            path.chmod(0)
        message = {"pipe": "it is a named pipe", "permission": "Permission denied"}[cause]
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(DataError, match=rf"x\.npz cannot be read: .*{message}"):
                _open(path)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_images_larger_than_the_memory_are_refused_before_they_are_read(path: Path, save: Save, dtype: type) -> None:
    images = np.ones((400, 100, 100), dtype)
    save(path, images=images, labels=np.arange(400) % 2)
    size = images.size * (4 if dtype == np.float64 else 1)
    tracemalloc.start()
    try:
        with pytest.raises(
            DataError, match=r"400 images of 1x100x100 take [\d.]+ MiB, more than .* ddcnn data prepare"
        ):
            open_data(DataConfig(source=f"npz:{path}"), memory=size - 1)
        assert tracemalloc.get_traced_memory()[1] < 40e6 + 8e6  # a piece, and its conversion
        tracemalloc.reset_peak()
        dataset = open_data(DataConfig(source=f"npz:{path}"), memory=size)
        assert tracemalloc.get_traced_memory()[1] < size + 48e6
    finally:
        tracemalloc.stop()
    assert int(dataset.images.sum()) == images.size


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_images_stay_on_disk_where_they_need_not_be_in_memory(path: Path, order: Literal["C", "F"]) -> None:
    draw = np.random.default_rng(0)
    parts = {name: draw.integers(0, 256, (n, 6, 7, 3), np.uint8) for name, n in (("train", 5), ("test", 4))}
    arrays = {f"{name}_images": np.asarray(images, order=order) for name, images in parts.items()}
    np.savez(path, **arrays, train_labels=np.arange(5) % 2, test_labels=np.arange(4) % 2)
    dataset = open_lazily(DataConfig(source=f"npz:{path}"), memory=900)
    assert isinstance(dataset.images, Lazy)
    expected = np.concatenate([parts["train"], parts["test"]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(dataset.images[torch.arange(9)].numpy(), expected)
    np.testing.assert_array_equal(open_data(DataConfig(source=f"npz:{path}")).images.numpy(), expected)
    raw = bytearray(path.read_bytes())
    raw[raw.index(arrays["train_images"].tobytes("A")[:50]) + 20] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="cannot be read: Bad CRC-32"):
        open_lazily(DataConfig(source=f"npz:{path}"), memory=900)


def test_what_float32_cannot_hold_is_named_in_images_that_stay_on_disk(path: Path) -> None:
    images = np.ones((400, 10, 10))
    images[300, 2, 3] = 1e39
    np.savez(path, images=images, labels=np.arange(400) % 2)
    with pytest.raises(DataError, match=r"image 300 holds values up to 1e\+39, too large for float32; scale them"):
        open_lazily(DataConfig(source=f"npz:{path}"), memory=900)

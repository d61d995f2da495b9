"""Images in memory and tables of files, as data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddcnn.config import DataConfig
from ddcnn.data import as_dataset, open_data
from ddcnn.data.arrays import arranged
from ddcnn.errors import DataError

LABELS = np.array([0, 1, 1, 0])


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "layout", "axes"),
    [
        ((4, 5, 6), None, (0, None, 1, 2)),
        ((4, 5, 6, 3), None, (0, 3, 1, 2)),
        ((4, 5, 6, 7), None, (0, None, 1, 2, 3)),
        ((4, 5, 6, 7, 2), None, (0, 4, 1, 2, 3)),
        ((4, 3, 5, 6), "NCHW", (0, 1, 2, 3)),
        ((4, 3, 5, 6), "NDHW", (0, None, 1, 2, 3)),
        ((4, 3, 5, 6), "nhwc", (0, 3, 1, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_every_layout_of_arrays_and_tensors(
    shape: tuple[int, ...], layout: str | None, axes: tuple[int | None, ...], kind: str
) -> None:
    images = pixels(*shape)
    expected = images.transpose([axis for axis in axes if axis is not None])
    expected = expected[:, None] if axes[1] is None else expected
    given: Any = images if kind == "numpy" else torch.from_numpy(images)
    dataset = as_dataset(given, torch.from_numpy(LABELS) if kind == "torch" else LABELS, layout=layout)
    np.testing.assert_array_equal(dataset.images.numpy(), expected)
    assert (dataset.name, dataset.classes, dataset.labels.tolist()) == ("arrays", ("0", "1"), LABELS.tolist())
    images[:] = 0
    np.testing.assert_array_equal(dataset.images.numpy().any(), True)  # it is a copy


def test_the_rule_is_that_of_files(tmp_path: Path) -> None:
    for shape in ((4, 5, 6), (4, 5, 6, 3), (4, 5, 6, 7), (4, 3, 5, 6), (4, 1, 5, 6, 7), (4, 5)):
        np.savez(tmp_path / "x.npz", images=pixels(*shape), labels=LABELS)
        outcomes = []
        for read in (
            lambda: open_data(DataConfig(source=f"npz:{tmp_path / 'x.npz'}")),
            lambda: as_dataset(pixels(*shape), LABELS),  # noqa: B023 - called at once
        ):
            try:
                outcomes.append(tuple(read().images.shape))
            except DataError as error:
                outcomes.append(str(error).partition(": ")[2].partition("; write")[0])
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int64, [0, 255], torch.uint8),
        (np.int64, [0, 256], torch.float32),
        (np.int16, [-1, 3], torch.float32),
        (np.float64, [0, 1], torch.float32),
        (bool, [0, 1], torch.uint8),
    ],
)
def test_types(dtype: type, values: list[int], expected: torch.dtype) -> None:
    images = np.array(values * 12, dtype).reshape(4, 2, 3)
    dataset = as_dataset(images, LABELS)
    assert dataset.images.dtype == expected
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), images)


def test_labels_of_every_kind() -> None:
    images = pixels(4, 5, 6)
    words = ["b", "a", "a", "b"]
    kinds: list[Any] = [words, np.array(words, object), np.array([b"b", b"a", b"a", b"b"])]
    if hasattr(np.dtypes, "StringDType"):  # since NumPy 2
        kinds.append(np.array(words, np.dtypes.StringDType()))
    for labels in kinds:
        dataset = as_dataset(images, labels)
        assert (dataset.classes, dataset.labels.tolist()) == (("a", "b"), [1, 0, 0, 1])
    dataset = as_dataset(images, LABELS, classes=["healthy", "ill"])
    assert (dataset.classes, dataset.labels.tolist()) == (("healthy", "ill"), LABELS.tolist())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"X": pixels(4, 3, 5, 6)},
            r"X: images of shape \(4, 3, 5, 6\) may have .* give layout='NCHW', or layout='NDHW'",
        ),
        ({"layout": "NCHW"}, r"X: layout NCHW has 4 axes, but the images have shape \(4, 5, 6\)"),
        ({"X": pixels(4, 5)}, r"X: images should have shape \(n, H, W\), .* got \(4, 5\)"),
        ({"X": np.full((4, 5, 6), np.nan)}, "image 0 holds NaN or infinity"),
        (
            {"X": np.full((4, 5, 6), 1e300)},
            r"^X: image 0 holds values up to 1e\+300, too large for float32; scale them",
        ),
        ({"X": torch.full((4, 5, 6), -1e39, dtype=torch.float64)}, r"X: image 0 holds values up to -1e\+39, too large"),
        ({"X": np.full((4, 5, 6), "a")}, "X: images should be numbers, got <U1"),
        ({"X": [[1], [2, 3]]}, "inhomogeneous|Python objects"),
        ({"y": LABELS[:3]}, "X has 4 images, but y has 3 labels"),
        ({"y": LABELS + 1}, "y: labels should be 0, 1, .* give labels - 1"),
        ({"y": np.eye(2)[LABELS]}, r"y: labels should have shape \(n,\) .*one-hot: give labels.argmax"),
        ({"y": LABELS / 2}, "y: labels should be integers from 0 or strings, got float64"),
        ({"y": None}, "labels are missing; give X and y"),
        ({"groups": [1, 2, 3]}, r"groups should have shape \(4,\), one per image, got \(3,\)"),
        ({"groups": [1.0, 2, np.nan, 3]}, "groups should be integers or strings, got float64; none may be missing"),
        ({"sample_weight": [1, 2, 3]}, r"sample_weight should have shape \(4,\), one per image, got \(3,\)"),
        ({"sample_weight": [1, 2, 3, -1]}, r"weights should be at least 0, finite, and not all 0, got -1..3"),
        ({"classes": ["a"]}, "at least 2 classes are needed"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(given: dict[str, Any], message: str) -> None:
    values = {"X": pixels(4, 5, 6), "y": LABELS} | given
    with pytest.raises((DataError, ValueError), match=message) as error:
        as_dataset(values.pop("X"), values.pop("y"), **values)
    assert "\n" not in str(error.value)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    for i in range(6):
        Image.fromarray(np.full((8, 16), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return [str(tmp_path / f"{i}.png") for i in range(6)]


def test_a_table_of_files(photos: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"file": photos, "label": ["b", "a"] * 3, "group": ["x", "y", "x", "y", "z", "z"], "age": range(6)}
    for table in (columns, pandas.DataFrame(columns, index=range(10, 16))):
        dataset = as_dataset(table, config=DataConfig(image_size=(4, 4), resize="crop"))
        assert (dataset.classes, dataset.labels.tolist()) == (("a", "b"), [1, 0] * 3)
        assert dataset.images[:, 0, 0, 0].tolist() == [40 * i for i in range(6)]
        assert dataset.groups is not None
        assert dataset.groups.tolist() == [0, 1, 0, 1, 2, 2]
    assert as_dataset({"file": photos}, [0, 1] * 3).labels.tolist() == [0, 1] * 3


def test_a_table_is_read_as_a_csv_of_it(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.full((4, 5, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    names, parts = [f"{i}.png" for i in range(6)], ["train", "train", "val", "val", "test", "Test"]
    lines = [f"{name},{'ab'[i % 2]},{parts[i]},{i},x" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,Split,Group,age", *lines]))
    listed = open_data(DataConfig(source=f"csv:{tmp_path / 't.csv'}"))
    columns = {"Split": parts, "Group": range(6), "age": ["x"] * 6, "label": ["a", "b"] * 3}
    table = as_dataset({"file": [str(tmp_path / name) for name in names], **columns})
    for field in ("images", "labels", "official_test", "official_validation", "groups"):
        assert torch.equal(getattr(listed, field), getattr(table, field)), field
    for field in ("classes", "flip_axes", "crop", "notes"):
        assert getattr(listed, field) == getattr(table, field), field
    assert "columns that are not used: age" in table.notes


def test_a_table_that_cannot_be_used(photos: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"should be the columns file and label, and perhaps .*; got file, labels"):
        as_dataset({"file": photos, "labels": [0, 1] * 3})
    with pytest.raises(DataError, match="got 6 files and 2 labels"):
        as_dataset({"file": photos, "label": [0, 1]})
    with pytest.raises(DataError, match=r"a table lists '.*0\.png' twice, in row 0 and row 6"):
        as_dataset({"file": [*photos, photos[0]], "label": [0, 1] * 3 + [0]})
    with pytest.raises(DataError, match="a table, row 1: split 'tset' is unknown: did you mean 'test'"):
        as_dataset({"file": photos, "label": [0, 1] * 3, "split": ["test", "tset", *["train"] * 4]})
    missing = str(tmp_path / "no.png")
    with pytest.raises(DataError, match=r"no\.png cannot be read: No such file"):
        as_dataset({"file": [*photos, missing], "label": [0, 1] * 3 + [0]})
    dataset = as_dataset({"file": [*photos, missing], "label": [0, 1] * 3 + [0]}, config=DataConfig(on_bad_file="warn"))
    assert len(dataset.labels) == 6
    assert dataset.bad_files[0].file == missing


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (2, 5, 6, 3)])
def test_images_are_arranged_as_in_training(shape: tuple[int, ...]) -> None:
    images = pixels(*shape)
    expected = images if shape[1] == 3 else images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(arranged(images, (3, 5, 6), "X"), expected)
    with pytest.raises(DataError, match=r"X: expected images of shape \(n, 3, 6, 5\) as in training, got \(2, "):
        arranged(images, (3, 6, 5), "X")


def test_pixels_that_were_in_memory_cannot_be_read() -> None:
    with pytest.raises(DataError, match=r"data\.source = arrays: these images were given in memory and are not kept"):
        open_data(DataConfig(source="arrays"))


def test_a_layout_that_is_told_is_used_or_refused() -> None:
    images = pixels(2, 6, 5)
    np.testing.assert_array_equal(arranged(images, (1, 5, 6), "X", "NWH"), images.transpose(0, 2, 1)[:, None])
    with pytest.raises(DataError, match=r"^X: expected images of 1x6x5 \(channels first\) .* got 1x5x6 by NWH"):
        arranged(images, (1, 6, 5), "X", "NWH")


@pytest.mark.parametrize("what", ["X", "y", "groups", "sample_weight"])
def test_masked_values_are_not_used(what: str) -> None:
    given: dict[str, Any] = {"X": pixels(4, 5, 6), "y": LABELS, "groups": [1, 2, 3, 4], "sample_weight": [1.0] * 4}
    given[what] = np.ma.masked_array(given[what], False)
    as_dataset(given["X"], **{name: value for name, value in given.items() if name != "X"})
    given[what][0] = np.ma.masked
    masked = 30 if what == "X" else 1
    for one in (given[what], [*given[what]]):  # a list of arrays unmasks them as well
        with pytest.raises(DataError, match=f"^{what} has masked values, {masked} of them; fill them, {what}.filled"):
            as_dataset(**given | {what: one})

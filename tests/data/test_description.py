"""What an input means: kept, read again, and compared before anything is computed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset
from ddcnn.data.description import InputDescription
from ddcnn.errors import DataError

WHOLE, ONE = (0.0, 255.0), (0.0, 1.0)
BYTES = InputDescription("uint8", WHOLE, 3, (6, 8), ("cat", "dog"))
UNIT = InputDescription("float32", ONE, 1, (6, 8), ("cat", "dog"))
GROUPS = {"healthy": ("0",), "ill": ("1", "2")}
CT = InputDescription("uint8", WHOLE, 1, (4, 4, 4), ("healthy", "ill"), (-1000.0, 400.0), GROUPS, True)


@pytest.mark.parametrize("one", [BYTES, UNIT, CT])
def test_json_gives_back_an_equal_description(one: InputDescription) -> None:
    assert InputDescription.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_data_set_is_described_as_it_was_read() -> None:
    images = torch.full((4, 1, 6, 8), 0.5)
    images[0, 0, 0, 0], images[3, 0, 5, 7] = 0, 1
    dataset = Dataset("d", images, torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
    assert InputDescription.of(dataset, DataConfig()) == UNIT
    assert InputDescription.of(dataset, DataConfig(image_size=(6, 8))).resized


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float64"),
        ("value_range", [1, 0]),
        ("value_range", [0, float("nan")]),
        ("value_range", [0]),
        ("channels", 0),
        ("channels", "many"),
        ("size", [5]),
        ("size", [5, 0]),
        ("classes", ["a"]),
        ("classes", ["a", "a"]),
        ("classes", ["a", ""]),
        ("classes", ["a", "\udcff"]),
        ("window", [1, 1]),
        ("label_groups", [1]),
        ("layout", "NHW"),
        ("layout", "DHWN"),
        ("layout", 3),
        ("label_kind", "complex128"),
    ],
)
def test_a_description_of_a_stranger_is_refused_with_its_field(field: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"cannot be used: {field}") as error:
        InputDescription.from_json(CT.to_json() | {field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 1, [], {}, {"dtype": "uint8"}, BYTES.to_json() | {"more": 1}])
def test_what_is_no_description_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="description of the input cannot be used"):
        InputDescription.from_json(value)


@pytest.mark.parametrize(
    ("ours", "change", "message"),
    [
        (BYTES, {"classes": ("dog", "cat")}, "classes in another order"),
        (BYTES, {"classes": ("cat", "fox")}, "unknown class 'fox'"),
        (replace(BYTES, classes=("a", "b", "c")), {"classes": ("a", "b")}, "lacks the class 'c'"),
        (BYTES, {"channels": 1}, "6x8 with 3 channels, got 6x8 with 1 channel"),
        (BYTES, {"size": (8, 6)}, "6x8 with 3 channels, got 8x6 with 3 channels"),
        (CT, {"window": None}, r"window = \[-1000, 400\], got none"),
        (CT, {"label_groups": {"healthy": ("0",), "ill": ("2",)}}, "data.classes"),
        (BYTES, {"dtype": "float32", "value_range": ONE}, r"uint8 in 0\.\.255, got float32 in 0\.\.1"),
        (UNIT, {"dtype": "uint8", "value_range": WHOLE}, r"float32 in 0\.\.1, got uint8 in 0\.\.255"),
        (UNIT, {"value_range": WHOLE}, r"scale them to 0\.\.1"),
        (replace(UNIT, value_range=WHOLE), {"value_range": ONE}, r"look scaled to 0\.\.1"),
        (
            replace(BYTES, value_range=ONE),
            {"value_range": WHOLE},
            r"uint8 in 0\.\.1, got values in 0\.\.255; scale them",
        ),
        (replace(BYTES, value_range=(0.0, 16.0)), {"value_range": WHOLE}, r"scale them to 0\.\.16"),
    ],
)
def test_data_that_mean_something_else_are_refused(
    ours: InputDescription, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^npz:x\.npz.*{message}") as error:
        ours.check(replace(ours, **change), "npz:x.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ours", "change"),
    [
        (BYTES, {}),
        (BYTES, {"value_range": (3.0, 90.0)}),
        (replace(BYTES, value_range=(0.0, 30.0)), {"value_range": WHOLE}),
        (BYTES, {"value_range": (0.0, 2.0)}),
        (replace(BYTES, value_range=(0.0, 9.0)), {"value_range": (0.0, 20.0)}),
        (replace(CT, layout="NWHD"), {"layout": None, "label_kind": "str"}),
        (UNIT, {"value_range": (0.1, 1.7)}),
        (CT, {"label_groups": {"ill": ("2", "1"), "healthy": ("0",)}}),
    ],
)
def test_data_that_mean_the_same_pass(ours: InputDescription, change: dict[str, Any]) -> None:
    ours.check(replace(ours, **change))


@pytest.mark.parametrize("given", [np.asarray, torch.from_numpy])
def test_bare_arrays_of_another_scale_or_shape_are_refused(given: Any) -> None:
    rng = np.random.default_rng(0)
    three, one = rng.integers(0, 256, (2, 3, 6, 8), np.uint8), rng.random((2, 1, 6, 8), np.float32)
    for good in (three, three.astype(np.float32), three.astype(np.int64), np.zeros_like(three), three[:0]):
        BYTES.check_array(given(good))
    for good in (one, one.astype(np.float64), 3 * one - 1):
        UNIT.check_array(given(good))
    for ours, bad, message in (
        (BYTES, three / 255, r"look scaled to 0\.\.1"),
        (BYTES, three.astype(np.int16) - 128, r"uint8 in 0\.\.255, got int16"),
        (BYTES, three[:, :1], r"\(B, 3, 6, 8\), got \(2, 1, 6, 8\)"),
        (BYTES, three.transpose(0, 2, 3, 1).copy(), "move the axis of the channels to the front"),
        (UNIT, three[:, :1], r"scale them to 0\.\.1"),
        (UNIT, three[:, :1].astype(np.float32), r"scale them to 0\.\.1"),
        (UNIT, one * np.nan, "NaN"),
    ):
        with pytest.raises(DataError, match=message):
            ours.check_array(given(bad))


def test_other_data_are_read_as_those_of_the_training_where_their_source_can() -> None:
    config = DataConfig(source="csv:a.csv")
    update = {"window": CT.window, "classes": CT.label_groups, "image_size": CT.size}
    assert CT.adopt(config) == config.model_copy(update=update)
    given = DataConfig(source="csv:a.csv", window=ONE, image_size=(5, 5, 5))
    assert (CT.adopt(given).window, CT.adopt(given).image_size) == (ONE, (5, 5, 5))
    assert CT.adopt(DataConfig(source="npz:a.npz")) == DataConfig(source="npz:a.npz")
    assert CT.adopt(DataConfig(source="folder:a")).image_size == (4, 4, 4)
    assert BYTES.adopt(DataConfig(source="folder:a")).image_size is None

"""Names of classes: what is refused, what is said, and that it is said with the right counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data
from ddcnn.data.dataset import checked
from ddcnn.data.labels import check_classes, label_notes, number_classes
from ddcnn.errors import DataError

Save = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    ("labels", "notes"),
    [
        (["01", "1", "1", "2"], ["classes that look alike are kept apart: '01' (1 image), '1' (2 images)"]),
        (["1", "1.0", "2", "2"], ["classes that look alike are kept apart: '1' (1 image), '1.0' (1 image)"]),
        (["cat", "Cat", "dog", "CAT"], ["kept apart: 'CAT' (1 image), 'Cat' (1 image), 'cat' (1 image)"]),
        (["e\u0301", "\u00e9", "a", "a"], ["kept apart: 'e\u0301' (1 image), '\u00e9' (1 image)"]),
        (["a", "nan", "nan", "N/A"], ["'N/A' (1 image) looks like a missing", "'nan' (2 images) looks like a missing"]),
        (["0", "1", "255", "255"], ["the class '255' (2 images) may be what masks call void"]),
        (["a", "b", "a", "b"], []),
        (["0", "1", "10", "1"], []),
    ],
)
def test_odd_labels_of_a_table_are_said_and_kept(
    tmp_path: Path, save_image: Save, labels: list[str], notes: list[str]
) -> None:
    for i in range(4):
        save_image(tmp_path / f"{i}.png", seed=i)
    rows = "\n".join(f"{i}.png,{label}" for i, label in enumerate(labels))
    (tmp_path / "list.csv").write_text(f"file,label\n{rows}\n", encoding="utf-8")
    dataset = open_data(DataConfig(source=f"csv:{tmp_path / 'list.csv'}"))
    assert [dataset.classes[label] for label in dataset.labels] == labels
    of_labels = [note for note in dataset.notes if "taken for photographs" not in note]
    for got, expected in zip(of_labels, notes, strict=True):
        assert expected in got


def test_notes_are_not_said_twice() -> None:
    dataset = Dataset("d", torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("1", "01"), notes=("laid on white: 1 file",))
    once = checked(dataset)
    assert len(once.notes) == 2
    assert checked(once).notes == once.notes


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_numbers_are_classes_only_if_they_are_0_to_k(labels: list[int]) -> None:
    if sorted(set(labels)) == list(range(max(labels) + 1)):
        assert number_classes("x", np.array(labels)) == tuple(map(str, range(max(labels) + 1)))
    else:
        with pytest.raises(DataError, match="labels should be 0, 1, "):
            number_classes("x", np.array(labels))


@given(st.lists(st.text(max_size=8), min_size=2, max_size=5))
def test_notes_and_checks_take_any_text(names: list[str]) -> None:
    label_notes(names, [1] * len(names))
    if len(set(names)) < len(names) or any(not name.strip(" \u3000") for name in names):
        with pytest.raises(DataError):
            check_classes("x", names)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "\udce9"), r"the class '\\udce9' holds bytes that are no UTF-8; rename it"),
        (("a", "b" * 1001), "has more than 1,000 characters"),
        (("a", ""), "the class '' holds no visible character"),
        (("a", "b", "a"), "2 classes are called 'a'"),
    ],
)
def test_what_is_no_name_is_refused_at_the_door(classes: tuple[str, ...], message: str) -> None:
    labels = torch.arange(len(classes))
    with pytest.raises(DataError, match=message):
        checked(Dataset("d", torch.zeros(len(classes), 1, 2, 2), labels, classes))


@pytest.mark.parametrize("name", ["\u3000猫", "a\u00a0b", "می\u200cخواهم", "क\u200dष", "so\u00adft", "a\nb", "\x1b[2J"])
def test_any_language_and_any_control_is_a_name(name: str) -> None:
    dataset = checked(Dataset("d", torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("a", name)))
    assert dataset.classes == ("a", name)

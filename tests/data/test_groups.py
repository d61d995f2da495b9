"""Groups, such as patients, are kept in one part by every split, from every source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, as_dataset, folds, hold_out, make_split, open_data
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError


def _dataset(groups: list[int], seed: int = 0) -> Dataset:
    """Two classes; most groups have one, some have both."""
    draw = np.random.default_rng(seed)
    labels = [(g % 2 if g % 5 else int(draw.integers(2))) for g in groups]
    return as_dataset(np.zeros((len(groups), 2, 3), np.uint8), labels, groups=groups)


def _sizes(draw: np.random.Generator, count: int) -> list[int]:
    return [g for g in range(count) for _ in range(int(draw.integers(1, 6)))]


def _apart(dataset: Dataset, *parts: torch.Tensor) -> bool:
    assert dataset.groups is not None
    found = [set(dataset.groups[part].tolist()) for part in parts]
    return sum(map(len, found)) == len(set().union(*found))


@settings(max_examples=6, deadline=None)
@example(count=14, seed=164509, test=0.390625, validation=None)  # the groups of a class came last in each division
@given(
    count=st.integers(12, 30),
    seed=st.integers(0, 2**31 - 1),
    test=st.floats(0.1, 0.4),
    validation=st.none() | st.floats(0.02, 0.4),
)
def test_no_group_is_in_two_parts(count: int, seed: int, test: float, validation: float | None) -> None:
    dataset = _dataset(_sizes(np.random.default_rng(seed), count), seed)
    config = DataConfig(test=test, validation=validation)
    split = make_split(dataset, config, seed)
    parts = (split.train, split.validation, split.test)
    assert _apart(dataset, *parts)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(dataset.labels)))
    assert all(len(dataset.labels[part].unique()) == 2 for part in parts)
    assert split.to_json() == make_split(dataset, config, seed).to_json()


@pytest.mark.parametrize(("fraction", "most"), [(0.2, 0.03), (0.3, 0.03), (0.5, 0.03), (0.02, 0.02)])
def test_the_parts_have_about_their_sizes_and_proportions(fraction: float, most: float) -> None:
    dataset = _dataset(_sizes(np.random.default_rng(1), 300))
    split = make_split(dataset, DataConfig(test=fraction), 0)
    assert len(split.test) / len(dataset.labels) == pytest.approx(fraction, abs=most)
    if fraction > 0.1:  # of few groups, less can be asked
        whole, tested = (float(dataset.labels[part].float().mean()) for part in (slice(None), split.test))
        assert tested == pytest.approx(whole, abs=0.05)


def test_folds_and_held_out_parts_keep_groups() -> None:
    dataset = _dataset(_sizes(np.random.default_rng(2), 40))
    every = torch.arange(len(dataset.labels))
    parts = folds(every, dataset.labels, 4, 0, dataset.groups)
    assert _apart(dataset, *parts)
    assert sorted(torch.cat(parts).tolist()) == every.tolist()
    assert _apart(dataset, *hold_out(every, dataset.labels, 0.25, 0, dataset.groups))
    tested = []
    for fold in range(10):
        split = make_split(dataset, DataConfig(folds=(5, 2), fold=fold), 0)
        assert _apart(dataset, split.train, split.validation, split.test)
        tested.append(split.test)
    for repeat in (tested[:5], tested[5:]):
        assert sorted(torch.cat(repeat).tolist()) == every.tolist()


def test_other_data_sets_are_split_as_before() -> None:
    images, labels = np.zeros((40, 2, 3), np.uint8), [0, 1] * 20
    alone = as_dataset(images, labels, groups=list(range(40)))
    assert _apart(alone, *vars(make_split(alone, DataConfig(), 0)).values())
    plain = make_split(as_dataset(images, labels), DataConfig(), 0)
    assert (len(plain.test), len(plain.validation)) == (8, 3)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0] * 12, "the images of class '0' are of 1 group, and a group is kept in one part"),
        (
            [0, 1] * 6,
            "the images of class '0' are of 1 group, and a group is kept in one part: too few for training",
        ),
        ([0] * 6 + [1] * 6, "class '0' are of 2 groups, .* too few for training, validation and test"),
    ],
)
def test_too_few_groups(groups: list[int], message: str) -> None:
    dataset = as_dataset(np.zeros((12, 2, 3), np.uint8), [0, 1] * 6, groups=groups)
    with pytest.raises(DataError, match=message):
        make_split(dataset, DataConfig(), 0)
    with pytest.raises(DataError, match=r"folds should lie in 2\.\.\d, the number of groups, got 9"):
        folds(torch.arange(12), dataset.labels, 9, 0, dataset.groups)


def test_a_column_of_a_table(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("L", (3, 2), i).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{'ab'[i % 2]},p{i // 2}" for i in range(6)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["file,label,group", *rows]))
    assert open_data(DataConfig(source=f"csv:{table}")).groups.tolist() == [0, 0, 1, 1, 2, 2]  # type: ignore[union-attr]
    table.write_text("\n".join(["file,label,group", *rows[:5], "5.png,b,"]))
    with pytest.raises(DataError, match="line 7: the group is empty; give every row a group, or leave the column out"):
        open_data(DataConfig(source=f"csv:{table}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/p1_x.png", "a/p2_x.png", "b/p1_y.png", "b/p3_y.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 2)).save(path)
    return tmp_path / "images"


def test_a_pattern_for_the_files_of_a_folder(folder: Path, tmp_path: Path) -> None:
    def groups(pattern: str | None) -> list[int] | None:
        found = open_data(DataConfig(source=f"folder:{folder}", group_pattern=pattern)).groups
        return None if found is None else found.tolist()

    assert groups(None) is None
    assert groups("/(p[0-9])_") == groups("p[0-9]") == [0, 1, 0, 2]
    assert groups("^[ab]") == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"group_pattern = 'p\[12\]' does not match 'b/p3_y.png'; it should match all"):
        groups("p[12]")
    with pytest.raises(DataError, match=r"finds an empty group in 'a/p2_x\.png'; all should have one"):
        groups("p(?:([13])|.)")
    with pytest.raises(DataError, match=r"data.group_pattern is for folder:PATH"):
        open_data(DataConfig(source="phantom", group_pattern="x"))


def test_a_key_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    images = np.zeros((4, 2, 3), np.uint8)

    def groups(**arrays: object) -> list[int]:
        np.savez(path, **{name: np.asarray(values) for name, values in arrays.items()})
        found = open_data(DataConfig(source=f"npz:{path}")).groups
        assert found is not None
        return found.tolist()

    assert groups(images=images, labels=[0, 1] * 2, groups=["x", "y", "y", "x"]) == [0, 1, 1, 0]
    parts = {"train_images": images, "train_labels": [0, 1] * 2, "test_images": images[:2], "test_labels": [0, 1]}
    assert groups(**parts, train_groups=[7, 7, 8, 8], test_groups=[8, 9]) == [0, 0, 1, 1, 1, 2]
    named = np.array(["x", "y", "y", "x"], dtype=np.dtypes.StringDType())
    assert as_dataset(images, [0, 1] * 2, groups=named).groups.tolist() == [0, 1, 1, 0]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="the group of image 1 is empty, and of 2 in all; give every image a group"):
        groups(images=images, labels=[0, 1] * 2, groups=["x", "", " ", "y"])
    with pytest.raises(DataError, match="has the key train_groups but not test_groups"):
        groups(**parts, train_groups=[7, 7, 8, 8])


def test_a_store_keeps_groups(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="stores need zarr (pip install 'ddcnn[large]')")
    dataset = _dataset([0, 0, 1, 2, 2, 3])
    write_store(dataset, tmp_path / "s.zarr", Grid((1, 1)), workers=1)
    opened = open_data(DataConfig(source=f"zarr:{tmp_path / 's.zarr'}"))
    assert opened.groups is not None
    assert opened.groups.tolist() == [0, 0, 1, 2, 2, 3]


def test_groups_that_look_alike_are_said(tmp_path: Path, folder: Path) -> None:
    """A patient who is written in two ways would be in two parts."""
    said = ("groups that look alike are kept apart: 'P1' and 'p1'",)
    names, pixels = np.array(["P1", "p1", "P2", "P3"] * 3), np.zeros((12, 2, 3), np.uint8)
    labels = [0, 1] * 6
    assert as_dataset(pixels, labels, groups=names).notes == said
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, groups=names)
    assert open_data(DataConfig(source=f"npz:{tmp_path / 'a.npz'}")).notes == said
    files = [f"{i}.png" for i in range(12)]
    for file in files:
        Image.new("L", (3, 2)).save(tmp_path / file)
    rows = [f"{file},{label},{name}" for file, label, name in zip(files, labels, names, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,group", *rows]))
    assert open_data(DataConfig(source=f"csv:{tmp_path / 't.csv'}")).notes == said
    columns = {"file": [str(tmp_path / file) for file in files], "label": labels, "group": names}
    assert as_dataset(columns).notes == said
    pattern = DataConfig(source=f"folder:{folder}", group_pattern=r"/(p\d)")
    assert not [note for note in open_data(pattern).notes if "groups" in note]

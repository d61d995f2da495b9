"""Tables of files: what is read, and every way in which a table can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, make_split, open_data
from ddcnn.errors import DataError
from tests.data.volumes import save_nifti, scan

Save = Callable[..., np.ndarray]


def _open(folder: Path, rows: list[str] | str, header: str = "file,label", **options: object) -> Dataset:
    text = rows if isinstance(rows, str) else "\n".join([header, *rows]) + "\n"
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return open_data(DataConfig(source=f"csv:{folder / 'list.csv'}", **options))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, save_image: Save) -> Path:
    for i in range(6):
        save_image(tmp_path / f"in/{i}.png", size=(6, 9), seed=i)
    return tmp_path


def test_images(folder: Path, save_image: Save) -> None:
    pixels = [save_image(folder / f"in/{i}.png", mode="L", seed=i) for i in range(4)]
    dataset = _open(folder, [f"in/{i}.png, {'dog' if i % 2 else 'cat'} ,note" for i in range(4)], "file,label,remark")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), np.stack(pixels))
    assert (dataset.official_test, dataset.official_validation) == (None, None)


def test_volumes_of_mixed_size_are_resized(tmp_path: Path) -> None:
    for i, size in enumerate([(6, 7, 5), (9, 4, 3)] * 2):
        save_nifti(tmp_path / f"{i}.nii.gz", scan(i, size), axes=["LAS", "SLA"][i % 2])
    rows = [f"{i}.nii.gz,{i % 2}" for i in range(4)]
    with pytest.raises(DataError, match=r"0\.nii\.gz is 7x6x5 and .*1\.nii\.gz is .*; give --image-size 7x6x5"):
        _open(tmp_path, rows)
    dataset = _open(tmp_path, rows, image_size="4x5x6", window=(-1000, 400))
    assert (tuple(dataset.images.shape), str(dataset.images.dtype)) == ((4, 1, 4, 5, 6), "torch.uint8")
    assert str(_open(tmp_path, rows, image_size=4).images.dtype) == "torch.float32"


def test_the_split_is_respected(folder: Path) -> None:
    parts = ["train", "val", "test", "train", "Validation", "test"]
    dataset = _open(folder, [f"in/{i}.png,{i // 3},{parts[i]}" for i in range(6)], "file,label,split")
    split = make_split(dataset, DataConfig(), seed=0)
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [[0, 3], [1, 4], [2, 5]]


def test_a_split_that_is_train_everywhere_is_said_to_be_divided(folder: Path) -> None:
    rows = [f"in/{i}.png,{i % 2}" for i in range(6)]
    note = "split is train everywhere, so images to test and to validate on are drawn from these"
    assert note in _open(folder, [f"{row},train" for row in rows], "file,label,split").notes
    assert note not in _open(folder, rows).notes


def test_rows_without_a_word_are_passed_over(folder: Path) -> None:
    assert len(_open(folder, ["in/0.png,a", ",", "in/1.png,b", "", ","]).labels) == 2


def test_labels_that_are_numbers_are_sorted_as_numbers(folder: Path) -> None:
    assert _open(folder, [f"in/{i}.png,{(10, 9, 2)[i % 3]}" for i in range(6)]).classes == ("2", "9", "10")


def test_labels_are_grouped(folder: Path) -> None:
    rows = [f"in/{i}.png,{'abcabc'[i]}" for i in range(6)]
    dataset = _open(folder, rows, classes={"first": ("a",), "last": ("c",)})
    assert (dataset.classes, dataset.labels.tolist()) == (("first", "last"), [0, 1, 0, 1])
    dataset = _open(folder, rows, classes={"second": ("b",), "other": ("a", "c")})
    assert dataset.labels.tolist() == [1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("rows", "header", "options", "message"),
    [
        ([], "file,label", {}, r"list\.csv lists no file"),
        ("", "", {}, r"should be the columns file and label, and perhaps split and group; got nothing"),
        ([], "path,label", {}, "got path, label"),
        ([], "file;label", {}, "got file;label, separated by semicolons; save it with commas"),
        ([], "file\tlabel", {}, "separated by tabs; save it with commas"),
        ([], "file,label,label", {}, r"list\.csv has two columns label; keep one of them"),
        ([], "file,label,Split,split ", {}, "has two columns split"),
        ([], "file,label,group,Group", {}, "has two columns group"),
        ([], "file,label,groups", {}, r"the column 'groups' is not known: did you mean 'group'\? Rename it"),
        ([], "file,label,Splits", {}, r"the column 'Splits' is not known: did you mean 'split'\?"),
        (["in/0.png"], "file,label", {}, r"line 2: the label is empty"),
        (["in/0.png,a", "in/1.png,Fruit, red"], "file,label", {}, r"line 3: there are more fields than columns; put a"),
        ([",a"], "file,label", {}, r"line 2: the file is empty"),
        (["in/0.png,a", "in/1.png,b", "./in/0.png,a"], "file,label", {}, "twice, in line 2 and line 4"),
        (["in/0.png,a,tests"], "file,label,split", {}, r"line 2: split 'tests' is unknown: did you mean 'test'\?"),
        (["in/0.png,a,"], "file,label,split", {}, "split '' is unknown"),
        (["in/0.png,a,test", "in/1.png,b,test"], "file,label,split", {}, "split test .* but none of split train"),
        (["in/0.png,a"], "file,label", {"classes": {"x": ("b",)}}, "has no label 'b', which data.classes names"),
        (["in/0.png,a"], "file,label", {"classes": {"x": ("a",), "y": ("a",)}}, "puts 'a' into 'x' and 'y'"),
        (['in/0.png,"a'], "file,label", {}, "cannot be read as CSV: .*; is a quote opened and not closed"),
        (["../secret.png,a", "in/0.png,b"], "file,label", {}, r"line 2: '../secret.png' leaves the folder"),
        (["/etc/passwd,a"], "file,label", {}, r"line 2: '/etc/passwd' leaves the folder"),
        (["in/none.png,a"], "file,label", {}, "line 2: 'in/none.png' is not a file"),
        (["in/\x00.png,a"], "file,label", {}, "is not a path|cannot be read as CSV"),
        (["list.csv,a"], "file,label", {}, "is neither an image"),
        ([f"in/{i}.png,{i % 2}" for i in range(6)], "file,label", {"image_size": "2x3x4"}, "should be H or HxW"),
    ],
)
def test_faults_of_the_table(
    folder: Path, rows: list[str], header: str, options: dict[str, object], message: str
) -> None:
    (folder.parent / "secret.png").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        _open(folder, rows if header else "", header, **options)


def test_capitals_and_spaces_in_the_names_of_columns(folder: Path) -> None:
    rows = [f"in/{i}.png,{i % 2},{('train', 'test')[i // 4]},p{i // 2},{i},x" for i in range(6)]
    dataset = _open(folder, rows, "File,LABEL, Split,Group ,label_id,age")
    assert dataset.official_test is not None
    assert dataset.official_test.tolist() == [4, 5]
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert "columns that are not used: label_id, age" in dataset.notes


def test_parts_are_named_as_folders_are(folder: Path) -> None:
    parts = ["Training", "train", "dev", "valid", "testing", "test_set"]
    dataset = _open(folder, [f"in/{i}.png,{i % 2},{part}" for i, part in enumerate(parts)], "file,label,split")
    assert dataset.official_test is not None
    assert dataset.official_validation is not None
    assert (dataset.official_validation.tolist(), dataset.official_test.tolist()) == ([2, 3], [4, 5])


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"file,label\n\xff,a\n")
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        open_data(DataConfig(source=f"csv:{tmp_path / 'list.csv'}"))
    with pytest.raises(DataError, match="is a folder, not a CSV file"):
        open_data(DataConfig(source=f"csv:{tmp_path}"))


def test_a_link_out_of_the_folder_is_refused(folder: Path, save_image: Save) -> None:
    save_image(folder.parent / "outside.png")
    (folder / "in/link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(DataError, match="leaves the folder"):
        _open(folder, ["in/link.png,a"])


def test_every_bad_file_is_left_out_and_named(folder: Path, save_image: Save) -> None:
    (folder / "in/1.png").write_bytes((folder / "in/1.png").read_bytes()[:60])
    save_image(folder / "in/2.png", size=(4, 4))
    (folder / "in/7.png").write_text("hello")
    rows = [f"in/{i}.png,{i % 2}" for i in range(6)] + ["../out.png,0", "in/7.png,1", "in/8.png,1"]
    with pytest.raises(DataError, match="leaves the folder"):
        _open(folder, rows)
    dataset = _open(folder, rows, on_bad_file="skip")
    assert len(dataset.images) == 4
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    reasons = {Path(bad.file).name: bad.reason for bad in dataset.bad_files}
    assert set(reasons) == {"1.png", "2.png", "out.png", "7.png", "8.png"}
    assert "truncated" in reasons["1.png"] or "cannot be read" in reasons["1.png"]
    assert "should have one size" in reasons["2.png"]
    assert "leaves the folder" in reasons["out.png"]
    assert "is not an image" in reasons["7.png"]
    assert "is not a file" in reasons["8.png"]


def test_nothing_left(folder: Path) -> None:
    for name, message in (("in/9.png", "none of the 1 files"), ("list.csv", "none of 1 files can be used; the first")):
        with pytest.raises(DataError, match=message):
            _open(folder, [f"{name},a"], on_bad_file="skip")


def test_images_and_volumes_do_not_mix(folder: Path) -> None:
    save_nifti(folder / "v.nii", scan())
    with pytest.raises(DataError, match=r"has size 6x9, but .*v\.nii has 7x6x5; keep images and volumes"):
        _open(folder, ["in/0.png,a", "in/1.png,b", "v.nii,a"])

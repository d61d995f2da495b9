"""MosMedData as published, in small: folders CT-0 ... CT-4 of NIfTI files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, mosmed, open_data
from ddcnn.data.nifti import read_nifti
from ddcnn.errors import DataError
from tests.data.volumes import save_nifti, scan

COUNTS = {"CT-0": 4, "CT-1": 2, "CT-2": 3, "CT-3": 2, "CT-4": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    number = 0
    for folder, count in COUNTS.items():
        for _ in range(count):
            save_nifti(
                tmp_path / f"data/studies/{folder}/study_{number:04}.nii.gz", scan(number, (7, 8, 4 + number % 3))
            )
            number += 1
    return tmp_path / "data"


def _open(root: Path, **options: object) -> Dataset:
    return open_data(DataConfig(source="mosmed", directory=root, **{"image_size": "6x5x4"} | options))  # type: ignore[arg-type]


def test_the_classes_of_the_keras_example(root: Path) -> None:
    dataset = _open(root)
    assert dataset.classes == ("CT-0", "CT-2/3")
    assert dataset.labels.tolist() == [0] * 4 + [1] * 5
    assert tuple(dataset.images.shape) == (9, 1, 6, 5, 4)
    third = read_nifti(root / "studies/CT-2/study_0006.nii.gz", (6, 5, 4), (-1000.0, 400.0))
    np.testing.assert_array_equal(dataset.images[4].numpy(), third)
    assert (dataset.plane, dataset.flip_axes, dataset.rotation) == ((0, 1), (1,), 20.0)


def test_the_published_size_is_the_default(root: Path) -> None:
    assert _open(root, image_size=None).image_size == (128, 128, 64)


def test_classes_as_configured(root: Path) -> None:
    dataset = _open(root, classes={"none": ("CT-0", "CT-1"), "some": ("CT-2",), "much": ("CT-4", "CT-3")})
    assert dataset.classes == ("none", "some", "much")
    assert np.bincount(dataset.labels.numpy()).tolist() == [6, 3, 3]


@pytest.mark.parametrize("layout", ["data/studies", "data", "."])
def test_where_the_folders_are_found(root: Path, cache: Path, layout: str) -> None:
    if layout == ".":
        cache.mkdir()
        (root / "studies").rename(cache / "mosmed")
        assert len(open_data(DataConfig(source="mosmed", image_size=4)).labels) == 9
    else:
        assert len(_open(root.parent / layout).labels) == 9


def test_the_second_time_it_comes_from_the_cache(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(root)
    monkeypatch.setattr(mosmed, "read_nifti", None)
    again = _open(root)
    assert again.images.equal(first.images)
    (file,) = (cache / "mosmed").iterdir()
    file.write_bytes(file.read_bytes()[:200])  # damaged: made again
    monkeypatch.undo()
    monkeypatch.setenv("DDCNN_DATA", str(cache))
    assert _open(root).images.equal(first.images)


def test_a_scan_that_changes_is_read_again(root: Path) -> None:
    before = _open(root)
    save_nifti(root / "studies/CT-0/study_0000.nii.gz", scan(99, (9, 9, 9)))
    assert not _open(root).images.equal(before.images)


def test_bad_scans_are_left_out_and_named_also_from_the_cache(root: Path) -> None:
    (root / "studies/CT-0/study_0001.nii.gz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"study_0001\.nii\.gz is not a NIfTI volume"):
        _open(root)
    for _ in range(2):
        dataset = _open(root, on_bad_file="skip")
        assert len(dataset.labels) == len(dataset.images) == 8
        assert [Path(bad.file).name for bad in dataset.bad_files] == ["study_0001.nii.gz"]
    with pytest.raises(DataError, match=r"study_0001\.nii\.gz is not a NIfTI volume"):
        _open(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {"a": ("CT-0",), "b": ("CT-5",)}}, "names 'CT-5', but the folders of mosmed are CT-0, CT-1"),
        ({"image_size": "6x5"}, "data.image_size of volumes should be N or three numbers"),
        ({"directory": Path("nowhere")}, r"no folders CT-0 \.\.\. CT-4 in nowhere, .*; get MosMedData"),
    ],
)
def test_faults(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _open(**{"root": root} | {("root" if k == "directory" else k): v for k, v in options.items()})  # type: ignore[arg-type]


def test_an_empty_folder_is_named(root: Path) -> None:
    for file in (root / "studies/CT-3").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"CT-3 holds no scan"):
        _open(root)


def test_options_of_volumes_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.window is for csv:PATH and mosmed; leave it out for phantom"):
        open_data(DataConfig(source="phantom", window=(0, 1)))

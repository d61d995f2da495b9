from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data, tf_flowers
from ddcnn.errors import DataError

Save = Callable[..., np.ndarray]


@pytest.fixture
def folder(tmp_path: Path, save_image: Save, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the layout of TF-Flowers with few photographs, and the same kinds of copies."""
    folder = tmp_path / "flower_photos"
    photos = dict.fromkeys(tf_flowers.PHOTOS, 3)
    for i, name in enumerate(photos):
        for j in range(3):
            save_image(folder / name / f"{j}.jpg", size=(20 + i, 30 + j), seed=10 * i + j)
    shutil.copy(folder / "sunflowers" / "0.jpg", folder / "sunflowers" / "2.jpg")
    shutil.copy(folder / "roses" / "1.jpg", folder / "tulips" / "1.jpg")
    (folder / "LICENSE.txt").write_text("CC BY 2.0")
    monkeypatch.setattr(tf_flowers, "PHOTOS", photos)
    return folder


def _open(folder: Path, **options: object) -> Dataset:
    values = {"source": "tf_flowers", "directory": folder, "offline": True, **options}
    return open_data(DataConfig.model_validate(values))


def test_copies_are_dropped_and_said(folder: Path) -> None:
    dataset = _open(folder)
    assert dataset.images.shape == (12, 3, 180, 180)
    assert dataset.labels.bincount().tolist() == [3, 3, 2, 2, 2]
    assert dataset.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert dataset.source["dropped"].endswith(": roses/1.jpg, sunflowers/2.jpg, tulips/1.jpg")
    assert (dataset.flip_axes, dataset.shift, dataset.crop, dataset.official_test) == ((1,), 0, 0.5, None)


@pytest.mark.parametrize(("size", "expected"), [(40, (40, 40)), ("24x60", (24, 60))])
def test_another_size(folder: Path, size: object, expected: tuple[int, int]) -> None:
    assert _open(folder, image_size=size).image_size == expected


def test_the_second_time_nothing_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(folder)
    with monkeypatch.context() as patch:
        patch.delattr(tf_flowers, "read_images")
        again = _open(folder.parent)
    assert (first.images == again.images).all()
    assert first.labels.tolist() == again.labels.tolist()
    assert first.source == again.source


def test_changed_photographs_are_read_again(folder: Path, save_image: Save, cache: Path) -> None:
    first = _open(folder)
    save_image(folder / "daisy" / "0.jpg", size=(50, 50), seed=99)
    assert (first.images[0] != _open(folder).images[0]).any()
    assert len(list((cache / "tf_flowers").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "other arrays", "other shape", "other method"])
def test_a_damaged_cache_is_made_again(folder: Path, cache: Path, damage: str) -> None:
    first = _open(folder)
    (path,) = (cache / "tf_flowers").iterdir()
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif damage == "other method":  # of compression: zipfile raises NotImplementedError
        raw[raw.rindex(b"PK\x01\x02") + 10] = 99
        raw[raw.index(b"PK\x01\x02") + 10] = 99
        path.write_bytes(raw)
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "other arrays":
        np.savez(path, x=0)
    else:
        np.savez(path, images=first.images[:3].numpy(), labels=first.labels.numpy(), dropped=np.array(["a"]))
    again = _open(folder)
    assert (first.images == again.images).all()
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["images"], first.images.numpy())


def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where a folder should be")
    assert len(_open(folder).images) == 12
    assert "cannot be kept in" in caplog.text


def test_missing_photographs_are_counted(folder: Path) -> None:
    (folder / "roses" / "0.jpg").unlink()
    with pytest.raises(
        DataError, match=r"roses should hold 3 photographs, got 2; remove .* data\.source = folder:PATH"
    ):
        _open(folder)


def test_absent_and_offline_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"get http://download\.tensorflow\.org/.*flower_photos\.tgz \(md5 6f87fb78"):
        _open(tmp_path)


@pytest.mark.shared
def test_the_known_defects_of_the_published_set(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "flower_photos_180.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    dataset = _open(tmp_path, image_size=16)
    assert len(dataset.labels) == 3670 - 4
    assert dataset.labels.bincount().tolist() == [633, 898, 640, 697, 798]
    assert dataset.source["dropped"].count("15922772266_1167a06620.jpg") == 2

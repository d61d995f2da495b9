from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, make_split, open_data
from ddcnn.errors import DataError

Save = Callable[..., np.ndarray]


def _open(root: Path, **options: object) -> Dataset:
    return open_data(DataConfig.model_validate({"source": f"folder:{root}", **options}))


def test_classes_are_the_folders_in_order(tmp_path: Path, save_image: Save) -> None:
    root = tmp_path / "my images"
    pixels = {
        name: save_image(root / name, seed=i)
        for i, name in enumerate(["b/1.png", "a/2.PNG", "a/10.bmp", "a/deep er/0.png"])
    }
    dataset = _open(root)
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert dataset.image_size == (6, 9)
    assert dataset.official_test is None
    assert (dataset.flip_axes, dataset.shift) == ((), 0)
    order = ["a/10.bmp", "a/2.PNG", "a/deep er/0.png", "b/1.png"]
    np.testing.assert_array_equal(dataset.images.numpy(), np.stack([pixels[n].transpose(2, 0, 1) for n in order]))


def test_one_image_per_class_can_be_read_but_not_split(tmp_path: Path, save_image: Save) -> None:
    for name in "ab":
        save_image(tmp_path / "d" / name / "0.png", mode="L")
    dataset = _open(tmp_path / "d")
    assert dataset.images.shape == (2, 1, 6, 9)
    with pytest.raises(DataError, match="class 'a' has 1 image, at least 3 are needed"):
        make_split(dataset, DataConfig(), 0)


def test_hidden_and_other_files_are_left_out(tmp_path: Path, save_image: Save) -> None:
    root = tmp_path / "d"
    for name in ["a/0.png", "b/0.png", "a/.hidden.png", "a/.thumbs/1.png", ".git/1.png"]:
        save_image(root / name)
    (root / "LICENSE.txt").write_text("free")
    (root / "a" / "notes.txt").write_text("nice")
    assert _open(root).labels.tolist() == [0, 1]


def test_train_and_test_give_the_official_test(tmp_path: Path, save_image: Save) -> None:
    root = tmp_path / "d"
    for name in ["train/a/0.png", "train/a/1.png", "train/b/0.png", "train/c/0.png", "test/b/0.png", "test/a/0.png"]:
        save_image(root / name)
    dataset = _open(root)
    assert dataset.labels.tolist() == [0, 0, 1, 2, 0, 1]
    assert dataset.official_test is not None
    assert dataset.official_test.tolist() == [4, 5]


def test_images_are_resized_when_asked(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "d/a/0.png", size=(6, 9))
    save_image(tmp_path / "d/b/0.png", size=(9, 6))
    with pytest.raises(DataError, match=r"0\.png is 6x9 .* is 9x6; give --set data\.image_size="):
        _open(tmp_path / "d")
    assert _open(tmp_path / "d", image_size="4x5").image_size == (4, 5)
    assert _open(tmp_path / "d", image_size=7).image_size == (7, 7)


@pytest.mark.parametrize("size", ["0x4", "2x3x4"])
def test_image_size_is_checked(tmp_path: Path, save_image: Save, size: str) -> None:
    save_image(tmp_path / "d/a/0.png")
    with pytest.raises(DataError, match=r"data\.image_size should be H or HxW"):
        _open(tmp_path / "d", image_size=size)


def test_an_unreadable_image_is_named(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "d/a/0.png")
    save_image(tmp_path / "d/b/0.png")
    (tmp_path / "d/b/1.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"b.1\.jpg is not an image; remove it or replace it"):
        _open(tmp_path / "d")


def test_a_broken_link_is_named(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "d/a/0.png")
    save_image(tmp_path / "d/b/0.png")
    (tmp_path / "d/b/1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"b.1\.png cannot be read"):
        _open(tmp_path / "d")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "should hold one folder per class, got none and 0 images"),
        (["0.png", "1.png"], "should hold one folder per class, got none and 2 images"),
        (["a/0.png"], "at least 2 classes are needed, got 1: a"),
        (["a/0.png", "b/0.txt"], r"b holds no image \(\.bmp, \.gif"),
        (["train/a/0.png", "train/b/0.png", "test/c/0.png"], "c is a class without training images; add train/c"),
        (["train/a/0.png", "test/a/0.png", "val/a/0.png"], "train/ and test/ only, but there is also val; move its"),
        (["train/a/0.png", "test/0.png"], "test should hold one folder per class"),
    ],
)
def test_a_wrong_tree_is_explained(tmp_path: Path, save_image: Save, files: list[str], message: str) -> None:
    root = tmp_path / "d"
    root.mkdir()
    for name in files:
        if name.endswith(".png"):
            save_image(root / name)
        else:
            (root / name).parent.mkdir()
            (root / name).write_text("text")
    with pytest.raises(DataError, match=message):
        _open(root)


def test_a_file_or_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        _open(tmp_path / "file")
    with pytest.raises(DataError, match=r"nowhere does not exist \(looked from"):
        _open(tmp_path / "nowhere")

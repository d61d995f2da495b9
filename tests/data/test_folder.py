from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, make_split, open_data
from ddcnn.data.columns import part_named
from ddcnn.data.images import SUFFIXES
from ddcnn.data.lazy import Lazy
from ddcnn.data.sources import open_lazily
from ddcnn.data.walk import walk
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
    assert (dataset.flip_axes, dataset.shift, dataset.crop) == ((1,), 0, 0.5)
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
    with pytest.raises(DataError, match=r"0\.png is 6x9 .* is 9x6; give --image-size "):
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
        (["a/0.png", "b/0.txt"], r"b holds no image \(\.bmp, \.gif.*; it holds 1 \.txt; add some"),
        (["train/a/0.png", "train/b/0.png", "test/c/0.png"], "c is a class without training images; add train/c"),
        (
            ["train/a/0.png", "test/a/0.png", "old/a/0.png"],
            "test/, train/ only, but there is also old; move its",
        ),
        (["train/a/0.png", "Training/b/0.png"], "has two folders for train, Training and train; put them into one"),
        (
            ["p1/a/0.png", "p1/b/0.png", "p2/a/0.png", "p2/b/0.png"],
            "p1, p2 in .* hold the same folders, a, b, and no im",
        ),
        (
            ["val/a/0.png", "val/b/0.png", "test/a/0.png", "test/b/0.png"],
            "name them train, val and test; if they are cl",
        ),
        (
            ["data/a/0.png", "data/b/0.png"],
            r"data in .* holds a, b and no images; if those are the classes, give .*data",
        ),
        (["train/a/0.png", "train/b/0.png"], r"if those are the classes, give .*train"),
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


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", None, "Test"),
        ("Training", None, "Testing"),
        ("training_set", None, "test_set"),
        ("train", "valid", None),
        ("TRAIN", "Validation", "test-images"),
    ],
)
def test_known_names_are_parts_and_no_classes(
    tmp_path: Path, save_image: Save, train: str, validation: str | None, test: str | None
) -> None:
    for part in filter(None, (train, validation, test)):
        for name in ("ants/0.png", "bees/0.png", "bees/1.png"):
            save_image(tmp_path / "d" / part / name)
    dataset = _open(tmp_path / "d")
    assert dataset.classes == ("ants", "bees")
    assert dataset.labels.tolist() == [0, 1, 1] * sum(part is not None for part in (train, validation, test))
    where = [3, 4, 5]
    assert (dataset.official_validation is None) == (validation is None)
    if dataset.official_validation is not None:
        assert dataset.official_validation.tolist() == where
        where = [6, 7, 8]
    assert (dataset.official_test is None) == (test is None)
    if dataset.official_test is not None:
        assert dataset.official_test.tolist() == where


def test_links_are_followed_but_not_in_circles(tmp_path: Path, save_image: Save) -> None:
    root, elsewhere = tmp_path / "d", tmp_path / "elsewhere"
    for path in (root / "a/0.png", root / "b/0.png", elsewhere / "1.png", elsewhere / "deep/2.png"):
        save_image(path)
    (root / "a" / "more").symlink_to(elsewhere)
    (root / "a" / "again").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "loop").symlink_to("loop")
    dataset = _open(root)
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert "passed over: 3 links to folders above or read already" in dataset.notes


def test_what_is_passed_over_is_counted(tmp_path: Path, save_image: Save) -> None:
    root = tmp_path / "d"
    for name in ("a/0.png", "b/0.jfif", "b/@eaDir/SYNOPHOTO_THUMB.jpg", "a/.hidden.png", "@eaDir/a/0.png", "0.png"):
        save_image(root / name) if not name.endswith("jfif") else save_image(root / "b/0.jpg")
    (root / "b/0.jpg").rename(root / "b/0.jfif")
    for name in ("a/1.HEIC", "a/2.heic", "b/0.ppm", "b/readme", "b/0.png.txt"):
        (root / name).write_bytes(b"x")
    dataset = _open(root)
    assert dataset.labels.tolist() == [0, 1]
    others, system, hidden, _photographs = dataset.notes
    assert others.startswith("passed over: 2 .heic, 1 ")
    assert sorted(others.removeprefix("passed over: ").split(", ")[:-1]) == [
        *("1 .png", "1 .ppm", "1 .txt", "1 without suffix", "2 .heic"),
    ]
    assert system == "passed over: 2 @eaDir, folders of operating systems"
    assert hidden == "passed over: 1 hidden files or folders"


@contextmanager
def _as_nobody() -> Iterator[None]:
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["", "a", "a/deep"])
def test_a_folder_that_may_not_be_listed_is_an_error(save_image: Save, closed: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        root = Path(base) / "d"
        for name in ("a/0.png", "a/deep/1.png", "b/0.png"):
            save_image(root / name)
        Path(base).chmod(0o755)
        (root / closed).chmod(0)
        try:
            with _as_nobody(), pytest.raises(DataError, match=rf"{root / closed} cannot be listed: Permission denied"):
                _open(root)
        finally:
            (root / closed).chmod(0o755)


def test_a_pipe_and_a_socket_are_named_and_do_not_hang(tmp_path: Path, save_image: Save) -> None:
    for name in "ab":
        save_image(tmp_path / "d" / name / "0.png")
    os.mkfifo(tmp_path / "d/a/1.png")
    with pytest.raises(DataError, match=r"1\.png cannot be read: it is a named pipe"):
        _open(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "d/b/1.png"))
        dataset = _open(tmp_path / "d", on_bad_file="skip")
    assert dataset.labels.tolist() == [0, 1]
    assert [Path(bad.file).name for bad in dataset.bad_files] == ["1.png", "1.png"]


def test_folders_within_folders_1500_deep(tmp_path: Path, save_image: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        save_image(tmp_path / "d" / name / "0.png")
    monkeypatch.chdir(tmp_path / "d" / "a")
    for _ in range(1500):
        os.mkdir("s")  # noqa: PTH102 - the whole path is longer than a system call takes
        os.chdir("s")
    Path("1.png").write_bytes((tmp_path / "d/a/0.png").read_bytes())
    os.chdir(tmp_path)
    try:
        assert _open(Path("d")).labels.tolist() == [0, 0, 1]
        monkeypatch.chdir(tmp_path / "d" / "a" / "/".join("s" * 1500))
        for _ in range(1000):
            Path("t").mkdir()
            os.chdir("t")
        os.chdir(tmp_path)
        with pytest.raises(DataError, match="cannot be listed: File name too long"):
            _open(tmp_path / "d")
    finally:
        os.chdir(tmp_path)
        subprocess.run(["rm", "-rf", "d"], check=True)  # deeper than Python's own rmtree can go


_NO_CLASSES = {  # short enough to be drawn: the folders of systems that docs/reference/data.md names, and their like
    *("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "__macosx", "__pycache__"),
    "found.000",
}
_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(_NAMES.filter(lambda name: name not in (".", "..")), min_size=2, max_size=4, unique=True))
def test_any_text_is_the_name_of_a_class_or_refused_in_one_line(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        for name in names:
            (Path(base) / name).mkdir()
            (Path(base) / name / "0.bmp").write_bytes(_BMP)
        seen = [name for name in sorted(names) if not name.startswith(".") and name.casefold() not in _NO_CLASSES]
        blank = [name for name in seen if all(unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cf") for char in name)]
        parts = [name for name in seen if part_named(name)]
        if blank or len(seen) < 2:
            with pytest.raises(DataError) as caught:
                _open(Path(base))
            assert len(str(caught.value).splitlines()) == 1 or len(seen) < 2  # the name of its only class is quoted
        elif len(parts) < 2:
            assert list(_open(Path(base)).classes) == seen


_BMP = bytes.fromhex(
    "424d3a000000000000003600000028000000010000000100000001001800000000000400000000000000000000000000000000000000"
    "01020300"
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_layout_every_file_is_read_or_counted(data: st.DataObject) -> None:
    """Against os.walk, which follows links and knows nothing of classes."""
    folder = st.sampled_from(["x", "y", "@eaDir", ".git", "__MACOSX", "z z"])
    file = st.sampled_from(["0.png", "1.PNG", "2.jpeg", "3.heic", "4", ".5.png", "6.tar.gz", "Thumbs.db"])
    with tempfile.TemporaryDirectory() as base:
        for _ in range(data.draw(st.integers(1, 12))):
            path = Path(base, "/".join(data.draw(st.lists(folder, max_size=4))), data.draw(file))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        found = walk(Path(base), SUFFIXES)
        there = [Path(at, name) for at, _, names in os.walk(base) for name in names]
        shown = [
            path
            for path in there
            if not any(part.startswith(".") or part in ("@eaDir", "__MACOSX") for part in path.relative_to(base).parts)
        ]
        assert found.files == sorted(path for path in shown if path.suffix.lower() in SUFFIXES)
        assert sum(found.others.values()) == len(shown) - len(found.files)
        assert (found.hidden + sum(found.system.values()) > 0) == (len(shown) < len(there))


def test_images_larger_than_the_memory_are_refused_or_left_on_disk(tmp_path: Path, save_image: Save) -> None:
    names = [f"{name}/{i}.png" for name in "ab" for i in range(9)]
    for i, name in enumerate(names):
        save_image(tmp_path / "d" / name, size=(40, 50), mode="L" if i % 2 else "RGB", seed=i)
    (tmp_path / "d/a/9.png").write_text("no image")
    config = DataConfig(source=f"folder:{tmp_path / 'd'}", on_bad_file="skip")
    size = 18 * 3 * 40 * 50
    with pytest.raises(
        DataError, match=r"d: 19 images of 3x40x50 take .* KiB, more than the .* that may be used; make a"
    ):
        open_data(config, memory=size - 1)
    whole, left = open_data(config, memory=2 * size), open_lazily(config, memory=size)
    assert isinstance(left.images, Lazy)
    assert left.images.shape == (18, 3, 40, 50)
    assert left.bad_files == whole.bad_files
    assert torch.equal(left.images[torch.arange(18)], whole.images[torch.arange(18)])
    assert isinstance(open_lazily(config).images, torch.Tensor)  # small ones are read once

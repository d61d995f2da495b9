"""Files and arrays for a trained network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddcnn.cli.inputs import Wanted, find_files, read_batches
from ddcnn.data.array_file import ArrayFile
from ddcnn.data.dicom import read_dicom
from ddcnn.data.nifti import read_nifti
from ddcnn.errors import DataError

COLOUR = Wanted((3, 8, 6), "uint8")
VOLUME = Wanted((1, 4, 8, 6), "float32")


def read(path: Path, wanted: Wanted) -> np.ndarray:
    return np.concatenate([images for _, images in read_batches([path], wanted, 2)])


@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6, 3)])
def test_channels_first_or_last(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(144, dtype=np.int64).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    image = read(tmp_path / "a.npy", COLOUR)
    assert image.dtype == np.uint8
    assert np.array_equal(image[0], array if shape[0] == 3 else array.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(4, 8, 6), (1, 4, 8, 6), (4, 8, 6, 1)])
def test_volumes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", volume=np.ones(shape))
    assert read(tmp_path / "a.npz", VOLUME).shape == (1, 1, 4, 8, 6)


def test_many_images_in_one_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 6, 3), np.uint8), labels=[0, 1, 2])
    batches = list(read_batches([tmp_path / "a.npz"], COLOUR, 2))
    assert [len(images) for _, images in batches] == [2, 1]
    assert batches[1][0] == [f"{tmp_path / 'a.npz'}[2]"]


@pytest.mark.parametrize(
    ("array", "wanted", "expected"),
    [
        (
            np.zeros((8, 8, 3), np.uint8),
            COLOUR,
            r"expected an array of shape \(3, 8, 6\) as in training, got \(8, 8, 3\)",
        ),
        (np.zeros((3, 8, 6)), COLOUR, r"expected integers in 0\.\.255 as in training, got float64"),
        (np.full((3, 8, 6), 256), COLOUR, r"got int64 in 256\.\.256"),
        (np.full((4, 8, 6), np.nan), VOLUME, "expected finite float32 numbers as in training, got float64 in nan..nan"),
        (np.full((4, 8, 6), "x"), VOLUME, "expected finite float32 numbers as in training, got <U1"),
        (np.full((4, 8, 6), 1e300), VOLUME, "expected finite float32 numbers as in training"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray, wanted: Wanted, expected: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "a.npy", wanted)


def test_no_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy cannot be read: it holds Python objects"):
        read(tmp_path / "a.npy", VOLUME)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_arrays(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read|is neither an \.npz nor an \.npy file"):
        read(tmp_path / name, VOLUME)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_array_file_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        (np.savez if name == "a.npy" else np.save)(file, np.full((8, 6, 3), 7, np.uint8))
    assert read(tmp_path / name, COLOUR).tolist() == np.full((1, 3, 8, 6), 7).tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
@pytest.mark.parametrize(("shape", "dtype"), [((2, 9, 8, 6), "u1"), ((2, 4), "f4"), ((2, 4, 8, 6), "U9")])
def test_arrays_of_another_shape_or_type_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable, shape: tuple[int, ...], dtype: str
) -> None:
    """Their header says it: a file of any size costs nothing."""
    images = np.zeros(shape, dtype)
    file = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(file, images[0]) if save is np.save else save(file, images=images)
    monkeypatch.setattr(ArrayFile, "read", None)
    monkeypatch.setattr(ArrayFile, "pieces", None)
    with pytest.raises(DataError, match="as in training, got"):
        read(file, VOLUME)


def test_many_images_are_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before a damaged piece is answered, and the file is named."""
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[-len(content) // 5] ^= 1  # a pixel: its checksum is compared at the end
    (tmp_path / "a.npz").write_bytes(content)
    monkeypatch.setattr("ddcnn.data.array_file._PIECE", 144 * 10)
    bad: list[str] = []
    found = np.concatenate([batch for _, batch in read_batches([tmp_path / "a.npz"], COLOUR, 7, bad)])
    np.testing.assert_array_equal(found[:40], images[:40])
    assert len(found) < 60
    assert len(bad) == 1
    assert "a.npz cannot be read: Bad CRC-32" in bad[0]


def test_several_arrays_without_a_name_we_know(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match="many under the key images; got the keys x, y"):
        read(tmp_path / "a.npz", VOLUME)


def test_image_files_for_a_network_of_arrays(tmp_path: Path, refused: Callable, float_run: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    line = refused("predict", float_run, tmp_path / "a.png")
    assert "the run was trained on float32 arrays of shape (1, 8, 8); give .npy or .npz files" in line


def test_floats_for_a_network_of_floats(tmp_path: Path, call: Callable, float_run: Path) -> None:
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 64).reshape(8, 8))
    assert call("predict", float_run, tmp_path / "a.npy").code == 0


def test_files_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.txt", ".d.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files([str(tmp_path), str(tmp_path / "c.txt")])] == ["a.JPG", "b.png", "c.txt"]


def test_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        find_files([str(tmp_path)])
    with pytest.raises(DataError, match="does not exist"):
        find_files([str(tmp_path / "x")])


def test_folders_are_walked_as_those_of_the_training_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "d" / "@eaDir").mkdir(parents=True)
    for name in ("elsewhere/b.png", "d/a.jfif", "d/@eaDir/thumb.png", "d/.c.png"):
        Image.new("RGB", (6, 8)).save(tmp_path / name, format="PNG")
    (tmp_path / "d" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d" / "up").symlink_to(tmp_path / "d")
    assert find_files([str(tmp_path / "d")]) == [tmp_path / "d/a.jfif", tmp_path / "d/more/b.png"]


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.npz"])
def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read: it is a named pipe"):
        read(tmp_path / name, COLOUR)
    bad: list[str] = []
    assert not list(read_batches(find_files([str(tmp_path)]), COLOUR, 2, bad))
    assert len(bad) == 1


def test_photos_are_read_as_in_the_training() -> None:
    known = {"dtype": "uint8", "value_range": [0, 255], "channels": 1, "size": [4, 4], "classes": ["a", "b"]}
    data = {"image_shape": [1, 4, 4], "image_type": "uint8", "input": known | {"resized": True, "resize": "pad"}}
    assert Wanted.of(data).resize == "pad"
    assert Wanted.of(data, resize="crop").resize == "crop"
    assert Wanted.of({"image_shape": [1, 4, 4], "image_type": "uint8"}).resize == "stretch"


def test_scans_are_resized_and_windowed_as_in_the_training(tmp_path: Path) -> None:
    volumes = pytest.importorskip("tests.data.volumes", reason="scans need nibabel and pydicom")
    volumes.save_nifti(tmp_path / "deeper" / "a.nii.gz", volumes.scan())
    volumes.save_dicom(tmp_path / "deeper" / "series", volumes.scan(1, (8, 6, 4)))
    paths = find_files([str(tmp_path)], volumes=True)
    assert [path.name for path in paths] == ["a.nii.gz", "series"]
    window, size = (-1000.0, 400.0), read_nifti(paths[0]).shape[1:]
    wanted = Wanted((1, *size), "uint8", window=window)
    for path, reader in zip(paths, (read_nifti, read_dicom), strict=True):
        image = read(path, wanted)
        assert image.dtype == np.uint8
        assert np.array_equal(image[0], reader(path, size, window))
    assert wanted.resized == [paths[1]]


def test_scans_that_do_not_fit(tmp_path: Path) -> None:
    volumes = pytest.importorskip("tests.data.volumes", reason="scans need nibabel and pydicom")
    file = tmp_path / "a.nii"
    volumes.save_nifti(file, volumes.scan())
    d, h, w = read_nifti(file).shape[1:]
    with pytest.raises(DataError, match="is a volume, but the run was trained on images of shape"):
        read(file, COLOUR)
    with pytest.raises(DataError, match=r"does not say which values of a scan became 0 and 255 \(data\.window\)"):
        read(file, Wanted((1, d, h, w), "uint8"))
    with pytest.raises(DataError, match=rf"expected 9x{h}x{w} voxels .* got {d}x{h}x{w}; leave --resize no out"):
        read(file, Wanted((1, 9, h, w), "float32", "no"))
    assert read(file, Wanted((1, d, h, w), "float32")).dtype == np.float32
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no volume \(\.nii, \.nii\.gz, \.npy, \.npz\), and no DICOM series"):
        find_files([str(tmp_path / "empty")], volumes=True)

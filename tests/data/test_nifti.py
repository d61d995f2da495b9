"""Volumes: against nibabel's own reading and Pillow's resizing; and whatever may be wrong with a file."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ddcnn.data import nifti
from ddcnn.data.nifti import read_nifti
from ddcnn.data.volumes import resized
from ddcnn.errors import DataError
from tests.data.volumes import AFFINES, save_nifti, scan


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("axes", AFFINES)
def test_axes_run_as_radiologists_look(tmp_path: Path, axes: str, name: str, kind: type) -> None:
    save_nifti(tmp_path / name, scan(), axes=axes, kind=kind)
    right_front_up = nibabel.as_closest_canonical(nibabel.load(tmp_path / name)).get_fdata()
    expected = right_front_up.transpose(1, 0, 2)[::-1, ::-1, ::-1]
    got = read_nifti(tmp_path / name)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_types_and_byte_orders(tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if np.dtype(dtype).byteorder == ">" else "<")
    header.set_data_dtype(dtype)
    nibabel.Nifti1Image(values, AFFINES["LAS"], header).to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz")[0], values[:, ::-1, ::-1].transpose(1, 0, 2))


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(scan(), AFFINES["LAS"])
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(tmp_path / "a.nii")
    assert (image.header["scl_slope"], nibabel.load(tmp_path / "a.nii").dataobj.slope) == (2.0, 2.0)
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    np.testing.assert_allclose(np.sort(read_nifti(tmp_path / "a.nii"), axis=None), np.sort(expected, axis=None))


def test_wide_integers_are_scaled_as_nibabel_does(tmp_path: Path) -> None:
    """In float32 alone, their differences would be lost."""
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int32).reshape(2, 3, 4) + 2**30, np.eye(4))
    image.header.set_slope_inter(0.5, -(2.0**29))
    image.to_filename(tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert expected.max() == 11.5
    np.testing.assert_array_equal(np.sort(read_nifti(tmp_path / "a.nii"), axis=None), np.sort(expected, axis=None))


def test_window(tmp_path: Path) -> None:
    values = np.array([-3000, -1000, -300, 400, 3000, 399], np.int16).reshape(1, 1, 6)
    save_nifti(tmp_path / "a.nii", values)
    got = read_nifti(tmp_path / "a.nii", window=(-1000.0, 400.0))
    assert got.dtype == np.uint8
    assert got.ravel().tolist()[::-1] == [0, 0, 128, 255, 255, 255]  # 700 of 1400 is 127.5, and 127.5 rounds to even


@pytest.mark.parametrize("size", [(10, 40), (37, 5), (64, 64), (1, 1)])
def test_resizing_is_that_of_pillow(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((37, 23)).astype(np.float32)
    picture = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resized(values, size), np.asarray(picture), atol=1e-6)


def test_volumes_are_resized_along_all_axes(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii", np.arange(2 * 4 * 6, dtype=np.int16).reshape(2, 4, 6), axes="LAS")
    got = read_nifti(tmp_path / "a.nii", (8, 1, 3))
    assert got.shape == (1, 8, 1, 3)
    assert got.mean() == pytest.approx(23.5)


def _nan(path: Path) -> None:
    values = scan().astype(np.float32)
    values[1, 2, 3] = np.nan
    save_nifti(path, values)


def _truncated(path: Path) -> None:
    save_nifti(path, scan(size=(20, 20, 20)))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _short(path: Path) -> None:
    """A whole compressed stream whose header promises more than there is."""
    save_nifti(path, scan())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def _declared(path: Path) -> None:
    save_nifti(path, scan())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def _offset(path: Path) -> None:
    save_nifti(path, scan())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[108:112] = np.array(2**27, "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def _affine(number: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        save_nifti(path, scan())
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[280:284] = np.array(number, "<f4").tobytes()
        path.write_bytes(gzip.compress(bytes(raw)))

    return make


def _far(offset: int, most: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.int64)
        values = offset + np.linspace(-most, most, 24).astype(np.int64).reshape(2, 3, 4)
        nibabel.Nifti1Image(values, AFFINES["LAS"], header).to_filename(path)

    return make


def _flipped(path: Path) -> None:
    save_nifti(path, scan(size=(20, 20, 20)))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 255  # of the checksum
    path.write_bytes(raw)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncated, r"a\.nii\.gz cannot be read: .*end-of-stream"),
    "short": (_short, r"a\.nii\.gz is truncated: expected 420 bytes of voxels, got 320"),
    "declared": (_declared, r"declares 30000x30000x30000 voxels of int16, 54,000,000,000,000 bytes, more than the"),
    "flipped": (_flipped, r"a\.nii\.gz cannot be read: CRC check failed"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("hello " * 200), "is not a NIfTI volume in one file"),
    "2-D": (lambda path: save_nifti(path, scan(size=(6, 7))), r"a volume with 3 axes, got shape \(6, 7\)"),
    "4-D": (lambda path: save_nifti(path, scan(size=(6, 7, 5, 2))), r"with 3 axes, got shape \(6, 7, 5, 2\)"),
    "complex": (lambda path: save_nifti(path, scan().astype(np.complex64)), "should hold real numbers, got complex64"),
    "NaN": (_nan, "holds NaN or infinity"),
    "huge": (
        lambda path: save_nifti(path, np.linspace(0, 1e300, 24).reshape(2, 3, 4)),
        r"holds values up to 1e\+300, too large for float32; scale them",
    ),
    "far": (_far(2**40, 1000), r"differs by less than float32 can hold around 1\.1e\+12; subtract an offset"),
    "too far for float64": (_far(2**60, 10), r"differs by less than float32 can hold around 1\.2e\+18; subtract"),
    "infinity": (lambda path: save_nifti(path, np.full((2, 3, 4), np.inf)), "holds NaN or infinity"),
    "offset": (
        _offset,
        r"declares 134,217,728 bytes before its voxels \(vox_offset\), more than the 67,108,864 that are passed over",
    ),
    "affine of NaN": (_affine(np.nan), "its affine does not tell how the axes lie; repair the header, or remove it"),
    "affine of infinity": (_affine(-np.inf), "its affine does not tell how the axes lie; repair the header"),
    "affine of 0": (_affine(0.0), "its affine does not tell how the axes lie; repair the header"),
    "constant": (lambda path: save_nifti(path, np.full((4, 4, 4), 7, np.int16)), "is constant, 7 everywhere"),
    "folder": (lambda path: path.mkdir(), "cannot be read: it is a folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    make, message = FAULTS[fault]
    make(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=message) as error:
        read_nifti(tmp_path / "a.nii.gz")
    assert "a.nii.gz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fourth_axis_of_one_is_no_axis(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii", scan(size=(6, 7, 5, 1)))
    assert read_nifti(tmp_path / "a.nii").shape == (1, 7, 6, 5)


def test_a_bomb_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros compress a thousandfold: neither what is declared beyond the limit, nor what follows, is unfolded."""
    monkeypatch.setattr(nifti, "_MAX_BYTES", 10_000)
    save_nifti(tmp_path / "a.nii.gz", scan())
    raw = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    bomb = gzip.compress(bytes(raw) + bytes(2**26))
    raw[42:48] = np.array([400, 400, 400], "<i2").tobytes()
    declared = gzip.compress(bytes(raw) + bytes(2**26))
    tracemalloc.start()
    try:
        for content, message in ((bomb, None), (declared, "declares 400x400x400 voxels")):
            (tmp_path / "a.nii.gz").write_bytes(content)
            if message is None:
                assert read_nifti(tmp_path / "a.nii.gz").shape == (1, 7, 6, 5)
            else:
                with pytest.raises(DataError, match=message):
                    read_nifti(tmp_path / "a.nii.gz")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_without_nibabel_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_nifti(tmp_path / "a.nii", scan())
    monkeypatch.setitem(__import__("sys").modules, "nibabel.orientations", None)
    with pytest.raises(DataError, match=r"pip install 'ddcnn\[medical\]'"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-4000.0, -1500.0), (500.0, 3000.0)])
def test_a_volume_that_the_window_makes_constant_is_refused(tmp_path: Path, low: float, high: float) -> None:
    """One that is scaled to 0..1 already would be one shade of grey, and be answered as any other."""
    values = np.linspace(low, high, 8 * 9 * 10, dtype=np.float32).reshape(8, 9, 10)
    save_nifti(tmp_path / "a.nii", values)
    with pytest.raises(DataError, match=r"which are all alike in the window -1000\.\.400"):
        read_nifti(tmp_path / "a.nii", window=(-1000.0, 400.0))
    assert read_nifti(tmp_path / "a.nii", window=(low, high)).max() == 255

"""DICOM series: against the NIfTI file of the same volume; and whatever may be wrong with a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcnn.config import DataConfig
from ddcnn.data import dicom, open_data
from ddcnn.data.dicom import read_dicom
from ddcnn.data.nifti import read_nifti
from ddcnn.errors import DataError
from tests.data.test_fuzzing import BRIEF, damaged
from tests.data.volumes import AFFINES, save_dicom, save_nifti, scan


@pytest.mark.parametrize("axes", AFFINES)
def test_the_volume_that_nifti_has(tmp_path: Path, axes: str) -> None:
    save_dicom(tmp_path / "series", scan(), axes=axes)
    (tmp_path / "series" / "notes.txt").write_text("no slice")
    save_nifti(tmp_path / "a.nii", (scan() * 2.0 - 1024).astype(np.float32), axes=axes)
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), read_nifti(tmp_path / "a.nii"))
    window, size = (-1000.0, 400.0), (4, 9, 3)
    got = read_dicom(tmp_path / "series", size, window)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, read_nifti(tmp_path / "a.nii", size, window))


def _edit(number: int, **changes: object) -> Callable[[list[Path]], None]:
    def edit(files: list[Path]) -> None:
        one = pydicom.dcmread(files[number])
        for name, value in changes.items():
            delattr(one, name) if value is None else setattr(one, name, value)
        one.save_as(files[number])

    return edit


def _shifted(millimetres: float, *numbers: int) -> Callable[[list[Path]], None]:
    """Move slices sideways, along a row."""

    def edit(files: list[Path]) -> None:
        for number in numbers:
            _edit(number, ImagePositionPatient=[millimetres, 0.0, 2.0 * number])(files)

    return edit


def _cut(files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:-9])


def _without_preamble(file: Path, name: Path | None = None) -> None:
    """Write the data as old archives did: the elements of the image at once, explicit little endian."""
    one = pydicom.dcmread(file)
    plain = pydicom.Dataset(dict(one))
    file.unlink()
    plain.save_as(name or file, implicit_vr=False, little_endian=True, enforce_file_format=False)


def _without_syntax(file: Path) -> None:
    one = pydicom.dcmread(file)
    del one.file_meta.TransferSyntaxUID
    one.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=False)


def _moved(file: Path) -> None:
    (file.parent / "more").mkdir()
    file.rename(file.parent / "more" / file.name)


DEFECTS: list[tuple[Callable[[list[Path]], object], str]] = [
    (lambda files: [file.unlink() for file in files], "holds no DICOM file; name a folder with the slices"),
    (
        lambda files: files[2].unlink(),
        r"its slices are 2 to 4 mm apart: one is missing, or there twice; look between 007\.dcm and 021",
    ),
    (lambda files: shutil.copy(files[1], files[1].with_suffix(".again")), "its slices are 0 to 2 mm apart"),
    (_edit(1, SeriesInstanceUID="1.2.3"), r"014\.dcm|000\.dcm.* differ in SeriesInstanceUID; put each series into"),
    (_edit(1, Rows=3), "differ in Rows"),
    (_edit(1, ImagePositionPatient=None), "has no ImagePositionPatient: it is no slice of a volume"),
    (_edit(1, NumberOfFrames=3), "should hold one grey slice"),
    (_edit(1, SamplesPerPixel=3), "should hold one grey slice"),
    (_edit(0, Rows=60000, Columns=60000), "differ in Rows"),
    (_cut, "cannot be read|declares|truncated"),
    (
        _edit(1, PhotometricInterpretation="PALETTE COLOR"),
        "hold grey values, got PALETTE COLOR",
    ),
    (_edit(1, PixelSpacing=[1.0, 1.001]), "differ in PixelSpacing; put each"),
    (
        lambda files: _without_preamble(files[4]),
        r"no DICOM files .*, though named like slices or beginning so: 028\.dcm;",
    ),
    (lambda files: _without_preamble(files[4], files[4].with_name("last")), ": last;"),
    (lambda files: files[4].write_bytes(b""), r": 028\.dcm;"),
    (lambda files: [file.write_bytes(b"x") for file in files[1:]], r": 007\.dcm, 014\.dcm, 021\.dcm and 1 more;"),
    (lambda files: _without_syntax(files[1]), r"007\.dcm has no TransferSyntaxUID, which says how"),
    (_shifted(100, 2), r"014\.dcm lies 100 mm beside the straight line of the slices, more than a pixel, 1 mm; repair"),
    (_shifted(-100, 4), r"028\.dcm lies 100 mm beside the straight line"),
    (_shifted(40, 3, 4), r"\.dcm lies 20 mm beside the straight line"),
    (_shifted(1.01, 0), r"000\.dcm lies 1\.01 mm beside the straight line"),
    (_edit(1, HighBit=14), r"007\.dcm: HighBit should be BitsStored - 1, 15, got 14; write the pixels into the lowest"),
    (_edit(1, PixelSpacing=[0, 1]), r"007\.dcm: PixelSpacing should be two positive numbers, got \[0.*1.*\]; repair"),
    (_edit(1, RescaleSlope=0), r"007\.dcm: RescaleSlope is 0, which makes all values alike; repair or remove it"),
    (lambda files: _moved(files[4]), r"holds DICOM files in folders too, such as .*more.028\.dcm"),
]


@pytest.mark.parametrize(("spoil", "message"), DEFECTS, ids=map(str, range(len(DEFECTS))))
def test_what_cannot_be_used_is_one_line(tmp_path: Path, spoil: Callable[[list[Path]], object], message: str) -> None:
    spoil(save_dicom(tmp_path / "series", scan()))
    with pytest.raises(DataError, match=message) as caught:
        read_dicom(tmp_path / "series")
    assert "series" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Rows": 60000, "Columns": 60000}, r"declares 60000x60000 pixels of 16 bits, but holds 84 bytes"),
        ({"BitsAllocated": 64}, "declares 6x7 pixels of 64 bits"),
        ({"PixelData": b"\0" * 84}, "is constant, -1024 everywhere"),
        ({"RescaleSlope": 0.0}, r"RescaleSlope is 0"),
        ({"BitsStored": 12}, "HighBit should be BitsStored - 1, 11, got 15"),
        ({"PixelSpacing": [1, -1]}, "PixelSpacing should be two positive numbers"),
        ({"PixelSpacing": 1}, "PixelSpacing should be two positive numbers, got 1"),
        ({"PixelSpacing": None}, "PixelSpacing should be two positive numbers, got None;"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "its directions are zero or parallel; repair or remove it"),
        ({"ImageOrientationPatient": [1, 0, 0, -1, 0, 0]}, "its directions are zero or parallel"),
    ],
)
def test_what_all_slices_declare(tmp_path: Path, changes: dict, message: str) -> None:
    save_dicom(tmp_path / "series", scan(), **changes)
    with pytest.raises(DataError, match=message):
        read_dicom(tmp_path / "series")


@pytest.mark.parametrize("step", [0.0, 0.34, 1.5])
def test_a_gantry_may_be_tilted(tmp_path: Path, step: float) -> None:
    """Positions are then on an oblique line, as nearly as they are written."""
    values = scan(0, (6, 7, 60))
    files = save_dicom(tmp_path / "series", values)
    expected = read_dicom(tmp_path / "series")
    for k in range(60):
        _edit(k, ImagePositionPatient=[0.0, round(step * k, 1), 2.0 * k])(files)
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), expected)
    _edit(30, ImagePositionPatient=[0.0, round(step * 30 + 1.4, 1), 60.0])(files)
    with pytest.raises(DataError, match=rf"{files[30].name} lies 1\.[34]\d* mm beside the straight line"):
        read_dicom(tmp_path / "series")


def test_less_than_the_larger_side_of_a_pixel_is_no_shift(tmp_path: Path) -> None:
    files = save_dicom(tmp_path / "series", scan(), PixelSpacing=[1, 3])
    expected = read_dicom(tmp_path / "series")
    _shifted(2.9, 2)(files)
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), expected)
    _shifted(3.1, 2)(files)
    with pytest.raises(DataError, match="more than a pixel, 3 mm"):
        read_dicom(tmp_path / "series")


def test_wide_pixels_are_scaled_without_loss(tmp_path: Path) -> None:
    values = np.arange(42, dtype=np.int32).reshape(6, 7)
    wide = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelData": (values + 2**30).tobytes()}
    save_dicom(tmp_path / "series", scan(), **wide, RescaleSlope=0.5, RescaleIntercept=-(2.0**29))
    found = read_dicom(tmp_path / "series")
    assert np.unique(found).tolist() == [k / 2 for k in range(42)]


def test_compressed_pixels_are_refused_by_name(tmp_path: Path) -> None:
    files = save_dicom(tmp_path / "series", scan())
    content = files[0].read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    files[0].write_bytes(content)
    with pytest.raises(DataError, match=r"is compressed \(RLE Lossless\); decompress it first, with gdcmconv"):
        read_dicom(tmp_path / "series")


def test_more_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_dicom(tmp_path / "series", scan())
    monkeypatch.setattr(dicom, "_MAX_FILES", 3)
    with pytest.raises(DataError, match="holds more than 3 DICOM files"):
        read_dicom(tmp_path / "series")


def test_a_table_lists_series_and_files(tmp_path: Path) -> None:
    for n in range(6):
        save_dicom(tmp_path / f"series{n}", scan(n))
    save_nifti(tmp_path / "a.nii", scan(6))
    rows = [f"series{n},{n % 2}" for n in range(6)] + ["a.nii,0"]
    (tmp_path / "list.csv").write_text("file,label\n" + "\n".join(rows))
    data = open_data(DataConfig(source=f"csv:{tmp_path / 'list.csv'}", image_size=(4, 4, 4), window=(-1000, 400)))
    assert data.images.shape == (7, 1, 4, 4, 4)
    assert data.images.dtype == torch.uint8


@BRIEF
@given(st.data())
def test_whatever_the_bytes_of_a_slice_are(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    files = save_dicom(folder, scan())
    files[1].write_bytes(data.draw(damaged(files[1].read_bytes())))
    with suppress(DataError):  # and no other error
        assert read_dicom(folder).dtype == np.float32


def _written(value: float, form: str) -> str:
    return form if value == 0 else f"{value:.6f}"


def test_headers_are_compared_as_numbers(tmp_path: Path) -> None:
    files = save_dicom(tmp_path / "series", scan())
    expected = read_dicom(tmp_path / "series")
    orientation = pydicom.dcmread(files[0]).ImageOrientationPatient
    for number, zero in ((1, "-0"), (2, "0.000000001"), (3, "-1e-9")):
        texts = [_written(float(value), zero) for value in orientation]
        _edit(number, ImageOrientationPatient=texts, PixelSpacing=["1.000000", "1"])(files)
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), expected)


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 8, (6, 7, 5)).astype(np.int16)
    table = np.random.default_rng(1).integers(0, 4000, 8).astype(np.uint16)
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [8, 0, 16])
    lut.ModalityLUTType = "HU"
    lut.add_new("LUTData", "US", table.tolist())
    save_dicom(tmp_path / "series", values, ModalityLUTSequence=[lut], PixelRepresentation=0)
    save_nifti(tmp_path / "a.nii", table[values].astype(np.float32))
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), read_nifti(tmp_path / "a.nii"))


def test_a_directory_file_is_no_slice(tmp_path: Path) -> None:
    files = save_dicom(tmp_path / "series", scan())
    expected = read_dicom(tmp_path / "series")
    shutil.copy(files[0], tmp_path / "series" / "DICOMDIR")
    (tmp_path / "series" / "VERSION").write_text("1")
    np.testing.assert_array_equal(read_dicom(tmp_path / "series"), expected)

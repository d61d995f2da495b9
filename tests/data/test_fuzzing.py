"""Whatever the bytes of a file are, a reader returns a data set or raises an error of ours, in one line."""

from __future__ import annotations

import gzip
import io
import math
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddcnn.config import DataConfig
from ddcnn.data import array_file, images, make_split, nifti, open_data
from ddcnn.data.phantom import Phantom
from ddcnn.errors import DdcnnError
from tests.data.volumes import AFFINES, scan

BRIEF = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def _nifti(*, compressed: bool) -> bytes:
    content = nibabel.Nifti1Image(scan(), AFFINES["LAS"]).to_bytes()
    if not compressed:
        return bytes(content)
    return gzip.compress(content, mtime=0)


def _npz() -> bytes:
    file = io.BytesIO()
    arrays = {}
    for part, count in (("train", 6), ("val", 4), ("test", 4)):
        arrays[f"{part}_images"] = np.zeros((count, 3, 4, 2), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(file, kind)
    return file.getvalue()


VALID = {
    "a.nii": _nifti(compressed=False),
    "a.nii.gz": _nifti(compressed=True),
    "a.png": _image("PNG"),
    "a.jpg": _image("JPEG"),
    "a.tif": _image("TIFF"),
    "a.gif": _image("GIF"),
    "a.npz": _npz(),
    "a.csv": b"file,label,split\nb.png,x,train\nc.png,y,train\nd.png,x,test\ne.png,y,val\n",
}


@st.composite
def damaged(draw: Callable, content: bytes) -> bytes:
    """Random bytes; or a valid file, cut short, with bytes replaced, or with a piece taken out or put in."""
    how = draw(st.sampled_from(["random", "cut", "flip", "flip", "splice"]))
    if how == "random":
        return draw(st.binary(max_size=400))
    if how == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    if how == "flip":
        # the header is where the interesting fields are
        places = st.one_of(st.integers(0, len(content) - 1), st.integers(0, min(len(content), 360) - 1))
        for place in draw(st.lists(places, min_size=1, max_size=12)):
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    start = draw(st.integers(0, len(content) - 1))
    stop = draw(st.integers(start, len(content)))
    changed[start:stop] = draw(st.binary(max_size=40))
    return bytes(changed)


@pytest.fixture(autouse=True)
def _low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no header ask for more than a test should use."""
    monkeypatch.setattr(nifti, "_MAX_BYTES", 2**22)
    monkeypatch.setattr(nifti, "_MAX_OFFSET", 2**20)
    monkeypatch.setattr(array_file, "_MOST", 2**22)
    monkeypatch.setattr(images, "_MAX_PIXELS", 2**20)


def _tried(config: DataConfig) -> None:
    """Open images and split them: an error in one line, or a data set in which all fits together."""
    try:
        dataset = open_data(config)
        split = make_split(dataset, config, seed=0)
    except DdcnnError:
        return
    assert len(dataset.images) == len(dataset.labels)
    assert 0 <= int(dataset.labels.min()) <= int(dataset.labels.max()) < len(dataset.classes)
    assert torch.as_tensor(dataset.images[:]).double().isfinite().all()
    parts = torch.cat([split.train, split.validation, split.test])
    assert len(parts.unique()) == len(parts)
    assert set(parts.tolist()) <= set(range(len(dataset.labels)))


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("name", [name for name in VALID if not name.endswith((".npz", ".csv"))])
def test_files_of_a_table(name: str, mode: str) -> None:
    """A damaged file beside good ones: an error, or left out; the good ones are never lost."""
    suffix = name[1:]

    @BRIEF
    @given(content=damaged(VALID[name]))
    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for i in range(4):
                (Path(folder) / f"{i}{suffix}").write_bytes(VALID[name])
            (Path(folder) / f"bad{suffix}").write_bytes(content)
            rows = [f"{i}{suffix},{i % 2}" for i in range(4)] + [f"bad{suffix},0"]
            (Path(folder) / "list.csv").write_text("\n".join(["file,label", *rows]))
            config = DataConfig(source=f"csv:{folder}/list.csv", on_bad_file=mode, window=(-1000, 400), image_size=4)  # type: ignore[arg-type]
            if mode == "error":
                _tried(config)
            else:
                dataset = open_data(config)
                assert len(dataset.labels) + len(dataset.bad_files) == 5
                assert all(Path(bad.file).name == f"bad{suffix}" for bad in dataset.bad_files)

    check()


@pytest.mark.parametrize("source", ["npz", "medmnist3d"])
@BRIEF
@given(content=damaged(VALID["a.npz"]))
def test_archives(source: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(content)
        _tried(DataConfig(source=f"{source}:{path}"))


@BRIEF
@given(header=st.binary(max_size=200), stored=st.booleans())
def test_archives_of_damaged_arrays(header: bytes, stored: bool) -> None:
    """A whole archive around a damaged header of an array, which may promise any shape."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
            for part in ("train", "val", "test"):
                start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
                archive.writestr(f"{part}_images.npy", start + header)
                archive.writestr(f"{part}_labels.npy", start + header)
        for source in ("npz", "medmnist3d"):
            _tried(DataConfig(source=f"{source}:{path}"))


@BRIEF
@given(
    shape=st.lists(st.integers(-3, 2**40), max_size=6),
    kind=st.sampled_from(["|u1", "<f8", "<c8", "|O", "<U9", "<M8[s]", "nonsense", "|V3"]),
)
def test_archives_that_promise_any_shape(shape: list[int], kind: str) -> None:
    header = repr({"descr": kind, "fortran_order": False, "shape": tuple(shape)}).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
            )
            archive.writestr(
                "labels.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
            )
        _tried(DataConfig(source=f"npz:{path}"))


@BRIEF
@given(content=damaged(VALID["a.csv"]))
def test_tables(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in "bcde":
            (Path(folder) / f"{name}.png").write_bytes(VALID["a.png"])
        path = Path(folder) / "list.csv"
        path.write_bytes(content)
        _tried(DataConfig(source=f"csv:{path}"))


@BRIEF
@given(text=st.text(max_size=60))
def test_rows_of_a_table(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        path.write_bytes(f"file,label\n{text},x\n".encode(errors="surrogatepass"))
        _tried(DataConfig(source=f"csv:{path}", on_bad_file="skip"))


@BRIEF
@given(content=damaged(VALID["a.nii.gz"]))
def test_scans(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for label in ("CT-0", "CT-2", "CT-3"):
            (Path(folder) / label).mkdir()
            (Path(folder) / label / "a.nii.gz").write_bytes(VALID["a.nii.gz"])
        (Path(folder) / "CT-0" / "b.nii.gz").write_bytes(content)
        dataset = open_data(DataConfig(source="mosmed", directory=Path(folder), on_bad_file="skip", image_size=3))
        assert len(dataset.labels) + len(dataset.bad_files) == 4


@BRIEF
@given(content=damaged(VALID["a.png"]))
def test_folders(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for label in "xy":
            (Path(folder) / label).mkdir()
            (Path(folder) / label / "a.png").write_bytes(VALID["a.png"])
        (Path(folder) / "x" / "b.png").write_bytes(content)
        dataset = open_data(DataConfig(source=f"folder:{folder}", on_bad_file="skip"))
        assert len(dataset.labels) + len(dataset.bad_files) == 3


@given(text=st.one_of(st.text(max_size=30), st.from_regex(r"(size|n|seed|noise)=[0-9x.e-]{1,6}(,[a-z]+=[0-9]*)?")))
def test_options_of_the_phantom(text: str) -> None:
    try:
        phantom = Phantom.parse(text)
    except DdcnnError:
        return
    assert min(phantom.size) >= 1
    assert phantom.n >= 1
    assert 0 <= phantom.noise < math.inf

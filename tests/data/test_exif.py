"""Images are upright as their EXIF says, and damaged EXIF is named."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddcnn.data import read_image
from ddcnn.errors import DataError

Save = Callable[..., np.ndarray]


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; upright is a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.rot90(pixels, -1))


def test_damaged_exif_is_named(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.png", exif=b"Exif\0\0no header of TIFF")
    with pytest.raises(DataError, match=r"a\.png: its EXIF data are damaged .* exiftool -all= ") as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


_FIELD = struct.pack("<HHI4s", 0x112, 3, 1, bytes([6, 0, 0, 0]))  # orientation 6, a SHORT: turn by 90 degrees


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<2sHIH", b"II", 42, 8, 1) + _FIELD[:-2],  # truncated
        struct.pack("<2sHIH", b"II", 42, 8, 2) + _FIELD,  # two fields, of which one is there
        struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHI4s", 0x112, 3, 9000, b"\0\0\0\6"),  # elsewhere
        struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHI4s", 0x112, 3, 1, bytes([99, 0, 0, 0])) + bytes(4),
        struct.pack("<2sHI", b"II", 42, 4000),
        b"II*\0",
    ],
)
def test_exif_that_pillow_only_warns_of_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Which way is up would be lost without a word."""
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (4, 6)).save(path, exif=b"Exif\0\0" + content)
    with pytest.raises(DataError, match=f"{path}: its EXIF data are damaged .*so which way is up is not known"):
        read_image(path)
    whole = struct.pack("<2sHIH", b"II", 42, 8, 1) + _FIELD + bytes(4)
    Image.new("RGB", (4, 6)).save(path, exif=b"Exif\0\0" + whole)
    assert read_image(path).shape == (3, 4, 6)

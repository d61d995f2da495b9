from __future__ import annotations

import contextlib
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddcnn.data import images as module
from ddcnn.data import read_image
from ddcnn.data.bad_files import BadFiles
from ddcnn.data.image_memory import Room, given
from ddcnn.data.images import read_images
from ddcnn.errors import DataError

Save = Callable[..., np.ndarray]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, save_image: Save, suffix: str) -> None:
    pixels = save_image(tmp_path / f"a.{suffix}", size=(6, 9))
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_are_near(tmp_path: Path, suffix: str) -> None:
    ramp = np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 16, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}", quality=95)
    image = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert np.abs(image - ramp.transpose(2, 0, 1)).mean() < 4


def test_greyscale_has_one_channel_unless_asked(tmp_path: Path, save_image: Save) -> None:
    pixels = save_image(tmp_path / "a.png", mode="L")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels[None])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=3), np.stack([pixels] * 3))


def test_colour_to_one_channel_is_luminance(tmp_path: Path, save_image: Save) -> None:
    pixels = save_image(tmp_path / "a.png")
    luminance = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(read_image(tmp_path / "a.png", channels=1)[0] - luminance).max() <= 1


def _on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Porter-Duff "over", computed in real numbers."""
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, save_image: Save, suffix: str) -> None:
    pixels = save_image(tmp_path / "a.png", mode="RGBA")
    Image.fromarray(pixels).save(
        tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    got = read_image(tmp_path / f"a.{suffix}").transpose(1, 2, 0)
    assert np.abs(got - _on_white(pixels[..., :3], pixels[..., 3])).max() <= 1


def test_grey_and_alpha_stay_one_channel(tmp_path: Path, save_image: Save) -> None:
    pixels = save_image(tmp_path / "b.png", mode="LA")
    got = read_image(tmp_path / "b.png")
    assert got.shape == (1, 6, 9)
    assert np.abs(got[0] - _on_white(pixels[..., :1], pixels[..., 1])[..., 0]).max() <= 1


def test_ink_that_is_drawn_in_alpha_is_black_on_white(tmp_path: Path) -> None:
    ink = np.zeros((5, 5, 4), np.uint8)
    ink[2, :, 3] = 255
    Image.fromarray(ink).save(tmp_path / "a.png")
    expected = np.full((5, 5), 255)
    expected[2] = 0
    assert read_image(tmp_path / "a.png", channels=1)[0].tolist() == expected.tolist()


def test_a_colour_that_stands_for_transparency_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8)).save(tmp_path / "a.png", transparency=(9, 8, 7))
    Image.fromarray(np.array([[9, 8]], np.uint8)).save(tmp_path / "b.png", transparency=9)
    assert read_image(tmp_path / "a.png").transpose(1, 2, 0).tolist() == [[[255] * 3, [1, 2, 3]]]
    assert read_image(tmp_path / "b.png").tolist() == [[[255, 8]]]


def test_images_that_were_laid_on_white_are_counted(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "a.png", mode="RGBA")
    save_image(tmp_path / "b.png")
    Image.new("RGBA", (9, 6), (1, 2, 3, 255)).save(tmp_path / "c.png")  # it could be transparent, but is not
    bad = BadFiles()
    images, _ = read_images([tmp_path / f"{name}.png" for name in "abc"], bad=bad)
    assert bad.notes() == ("laid on white, because transparent: 1 file",)
    assert images[2, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_of_few_bits_that_stands_for_transparency(tmp_path: Path, bits: int) -> None:
    """Written as the PNG specification has it (11.3.2.1, 12.4): Pillow does not write such files."""
    greys = [0, 1, min(5, 2**bits - 1)] if bits > 1 else [0, 1, 1]
    row = "".join(f"{grey:0{bits}b}" for grey in greys)
    packed = int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(b"\0" + packed)),
        (b"IEND", b""),
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    scaled = [255 if grey == 1 else round(grey * 255 / (2**bits - 1)) for grey in greys]
    assert read_image(tmp_path / "a.png").flatten().tolist() == scaled


def test_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(numbers).convert("P")
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 90]], np.uint8)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    expected = _on_white(palette[numbers], np.array([0, 128, 255])[numbers]).transpose(2, 0, 1)
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 0, 255]]]


def test_size_is_height_then_width(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "a.png", size=(6, 9))
    assert read_image(tmp_path / "a.png", size=(4, 5)).shape == (3, 4, 5)


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((8, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    middle = read_image(tmp_path / "a.png", size=(8, 8))[0, :, 1:-1].astype(int)
    assert np.abs(middle - 127.5).max() < 3  # the mean; without antialiasing it is 0 or 255


def test_animated_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty; remove it or replace it"), (b"hello", "is not an image; remove it or replace it")],
)
def test_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png {message}"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_is_named(tmp_path: Path, save_image: Save, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save_image(path, size=(64, 48))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be read: .*truncated.*; remove it or replace it"):
        read_image(path)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png cannot be read: .*No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_image(tmp_path)


def _png(path: Path, rows: list[bytes], size: tuple[int, int], bits: int, kind: int) -> None:
    """Write a PNG file with no library: rows, each after a filter of type 0 (PNG, chapter 11)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("kind", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "rgb", "la", "rgba"])
def test_a_png_of_16_bits_is_refused_whatever_pillow_makes_of_it(tmp_path: Path, kind: int, bands: int) -> None:
    _png(tmp_path / "a.png", [np.full(5 * bands, 300, ">u2").tobytes()] * 4, (4, 5), 16, kind)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (5, 4)  # it is a good file
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per channel \(16 bits\); convert it to 8 bits"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_fewer_bits_of_grey_fill_the_range(tmp_path: Path, bits: int) -> None:
    values = np.arange(2 ** min(bits, 4))
    digits = "".join(format(value, f"0{bits}b") for value in values)
    row = int(digits, 2).to_bytes(-(-len(digits) // 8), "big") if len(digits) % 8 == 0 else bytes([int(digits, 2) << 6])
    _png(tmp_path / "a.png", [row], (1, len(values)), bits, 0)
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [round(value * 255 / (2**bits - 1)) for value in values]


def _tiff(path: Path, pixels: np.ndarray, kind: int) -> None:
    """Write a TIFF file with no library: one strip, little-endian (TIFF 6.0, section 2); ``kind`` is SampleFormat."""
    rows, columns, bands = pixels.shape
    bits = pixels.dtype.itemsize * 8
    strip = 8 + 2 + 11 * 12 + 4
    place = strip + pixels.nbytes
    short, long = 3, 4
    tags = [
        (256, long, 1, columns),
        (257, long, 1, rows),
        (258, short, bands, bits if bands == 1 else place),
        (259, short, 1, 1),
        (262, short, 1, 2 if bands == 3 else 1),
        (273, long, 1, strip),
        (277, short, 1, bands),
        (278, long, 1, rows),
        (279, long, 1, pixels.nbytes),
        (284, short, 1, 1),
        (339, short, bands, kind if bands == 1 else place + 2 * bands),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    extra = struct.pack(f"<{bands}H", *[bits] * bands) + struct.pack(f"<{bands}H", *[kind] * bands)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    path.write_bytes(head + entries + struct.pack("<I", 0) + pixels.tobytes() + extra)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "kind", "message"),
    [(np.uint16, 1, "more than 8 bits"), (np.int8, 2, "signed numbers"), (np.float32, 3, "more than 8 bits")],
)
def test_a_tiff_of_other_numbers_is_refused(tmp_path: Path, bands: int, dtype: type, kind: int, message: str) -> None:
    _tiff(tmp_path / "a.tif", np.full((4, 5, bands), -3 if kind == 2 else 3, dtype), kind)
    with pytest.raises(DataError, match=rf"a\.tif (has {message}|is not an image|cannot be read)"):
        read_image(tmp_path / "a.tif")
    pixels = np.arange(20 * bands, dtype=np.uint8).reshape(4, 5, bands)
    _tiff(tmp_path / "b.tif", pixels, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        what = {"pipe": "named pipe"}.get(kind, kind)
        with pytest.raises(DataError, match=rf"x\.png cannot be read: it is a {what}, not a file"):
            read_image(path)


def test_postscript_named_like_an_image_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(DataError, match=r"x\.png is not an image; remove it or replace it: it is PostScript"):
        read_image(tmp_path / "x.png")
    assert not (tmp_path / "started").exists()


def test_a_photo_in_heic_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(DataError, match="it is HEIC or AVIF, convert it"):
        read_image(tmp_path / "x.jpg")


def test_a_size_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"images of 100000x100000 pixels are too large, at most .*; give a smaller size"
    ):
        read_image(tmp_path / "a.png", size=(100_000, 100_000))


def test_an_image_without_pixels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 0, 3) + b"\0\0\0;")
    with pytest.raises(DataError, match=r"a\.gif (has 3x0 pixels|cannot be read|is not an image)"):
        read_image(tmp_path / "a.gif")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_more_than_8_bits_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.zeros((2, 3), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has more than 8 bits per channel .* npz"):
        read_image(tmp_path / "a.tif")


def test_pages_are_refused(tmp_path: Path) -> None:
    page = Image.new("L", (3, 2))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match=r"a\.tif has 3 pages"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("limit", ["ours", "pillow's"])
def test_decompression_bomb_is_refused(
    tmp_path: Path, save_image: Save, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    save_image(tmp_path / "a.png", size=(20, 20))
    if limit == "ours":
        monkeypatch.setattr(module, "_MAX_PIXELS", 300)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow itself would warn
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png claims more than \d+ pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("size", "channels"), [((4,), None), ((0, 4), None), (None, 4)])
def test_arguments_are_checked(
    tmp_path: Path, save_image: Save, size: tuple[int, ...] | None, channels: int | None
) -> None:
    save_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="an image file can be"):
        read_image(tmp_path / "a.png", size, channels)


@pytest.mark.parametrize("modes", [["L", "RGB", "L"], ["RGB", "L", "L"]])
def test_greyscale_and_colour_together_are_colour(tmp_path: Path, save_image: Save, modes: list[str]) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    pixels = [save_image(path, mode=mode, seed=i) for i, (path, mode) in enumerate(zip(paths, modes, strict=True))]
    images, kept = read_images(paths)
    assert kept.tolist() == [0, 1, 2]
    for image, one, mode in zip(images, pixels, modes, strict=True):
        np.testing.assert_array_equal(image, np.stack([one] * 3) if mode == "L" else one.transpose(2, 0, 1))


def test_sizes_that_differ_are_named(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "a.png", size=(6, 9))
    save_image(tmp_path / "b.png", size=(9, 6))
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(DataError, match=r"a\.png is 6x9 \(H x W\) and .*b\.png is 9x6; give --image-size "):
        read_images(paths)
    assert read_images(paths, (5, 7))[0].shape == (2, 3, 5, 7)


def test_colours_that_come_later_count(save_image: Save, tmp_path: Path) -> None:
    """The first file is grey: all become coloured, three times as large, when the second one is read."""
    for number in range(6):
        save_image(tmp_path / f"{number}.png", size=(40, 40), mode="L" if not number else "RGB", seed=number)
    paths = sorted(tmp_path.glob("*.png"))
    for memory, fits in ((6 * 40 * 40 * 3, True), (6 * 40 * 40 * 3 - 1, False)):
        with given(Room(memory=memory)):
            if fits:
                assert read_images(paths, None)[0].shape == (6, 3, 40, 40)
            else:
                with pytest.raises(DataError, match="6 images of 3x40x40 take"):
                    read_images(paths, None)

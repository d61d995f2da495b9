from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddcnn.data import images as module
from ddcnn.data import read_image
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


def test_alpha_is_dropped(tmp_path: Path, save_image: Save) -> None:
    colour = save_image(tmp_path / "a.png", mode="RGBA")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colour[..., :3].transpose(2, 0, 1))
    grey = save_image(tmp_path / "b.png", mode="LA")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), grey[None, ..., 0])


def test_palette_with_transparency_gives_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).convert("P")
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 90]], np.uint8)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    expected = palette[np.array([[0, 1, 2], [2, 1, 0]])].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


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


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; upright is a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.rot90(pixels, -1))


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
    with pytest.raises(DataError, match=r"a\.png is 6x9 \(H x W\) and .*b\.png is 9x6; give --set data\.image_size="):
        read_images(paths)
    assert read_images(paths, (5, 7))[0].shape == (2, 3, 5, 7)

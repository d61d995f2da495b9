"""Image files to arrays, the same way for training data and for predictions.

An image is turned upright (EXIF), transparency is dropped, and 8 bits per channel are required: to squeeze 16-bit or
floating-point values into 8 is a decision that belongs to who knows them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from ddcnn.data.bad_files import BadFiles, read_all
from ddcnn.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
_GREY = frozenset({"1", "L", "LA", "La"})
_EIGHT_BIT = _GREY | {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_MAX_PIXELS = 2**27  # a file of a few kB can claim more, to exhaust the memory of who opens it


def read_image(
    path: Path | str, size: tuple[int, ...] | None = None, channels: int | None = None
) -> UInt8[np.ndarray, "C H W"]:
    """Read one image file.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, WebP, TIFF or GIF (its first frame).
    size
        (H, W) to resize to, bilinear with antialiasing; None keeps the image's own.
    channels
        1 (luminance) or 3 (red, green, blue); None gives 1 for greyscale files and 3 for all others.

    Raises
    ------
    DataError
        The file cannot be read, is truncated, not an image, too large, has several pages, or more than 8 bits.
    """
    with _bombs_are_errors():
        return _read(Path(path), size, channels)


def read_images(
    paths: Sequence[Path], size: tuple[int, ...] | None = None, bad: BadFiles | None = None
) -> tuple[UInt8[np.ndarray, "m C H W"], Int64[np.ndarray, "m"]]:
    """Read image files of one size: one channel if all are greyscale, else three.

    Returns
    -------
    images, kept
        As `read_all`.

    Raises
    ------
    DataError
        As `read_image`; or two files differ in size and ``size`` is None.
    """
    with _bombs_are_errors():
        return read_all(paths, lambda path: _read(path, size, None), bad or BadFiles())


def _read(path: Path, size: tuple[int, ...] | None, channels: int | None) -> np.ndarray:
    if channels not in (None, 1, 3):
        raise DataError(f"an image file can be read as 1 or 3 channels, not {channels}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"an image file can be resized to (H, W) of at least 1 pixel, not {size}")
    try:
        with Image.open(path) as image:
            _check(path, image)
            upright = ImageOps.exif_transpose(image)
            return _array(upright, size, channels or (1 if image.mode in _GREY else 3))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except UnidentifiedImageError:
        what = "is empty" if path.stat().st_size == 0 else "is not an image"
        raise DataError(f"{path} {what}; remove it or replace it") from None
    except Exception as error:  # on damaged files the decoders raise anything, from SyntaxError to struct.error
        raise DataError(f"{path} cannot be read: {error}; remove it or replace it") from None


def _check(path: Path, image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise _too_large(path)
    if image.mode not in _EIGHT_BIT:
        raise DataError(
            f"{path} has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits, or give the values "
            "as float32 in an .npz file (data.source = npz:PATH)"
        )
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > 1:
        raise DataError(f"{path} has {pages} pages; save them as separate images, or as volumes in an .npz file")


def _array(image: Image.Image, size: tuple[int, ...] | None, channels: int) -> np.ndarray:
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # at once to RGB, Pillow warns of transparency
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # antialiased when it shrinks
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} claims more than {_MAX_PIXELS} pixels; cut it into smaller images, or remove it")


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    # Pillow only warns of images up to twice its limit; ours decides, so the warning would be one line too many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield

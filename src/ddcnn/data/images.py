"""Image files to arrays, the same way for training data and for predictions.

An image is turned upright (EXIF) and laid on white where it is transparent. 8 unsigned bits per channel are required,
and are looked for in the file: Pillow reads 16-bit colours as their high byte. To squeeze 16-bit, signed or
floating-point values into 8 bits is a decision that belongs to who knows them. Colour profiles are not applied.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin
from torch import Tensor

from ddcnn.config import Resize
from ddcnn.data.bad_files import BadFiles, read_all, read_or_leave
from ddcnn.data.files import open_file
from ddcnn.data.lazy import Lazy
from ddcnn.errors import DataError, in_one_line

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
COMPOSITED = "laid on white, because transparent"
_FORMATS = ("PNG", "JPEG", "BMP", WebPImagePlugin.WebPImageFile.format, "TIFF", "GIF")  # of Pillow's, no others
_RESIZING: dict[str, Callable[..., Image.Image]] = {
    "stretch": Image.Image.resize,
    "crop": ImageOps.fit,
    "pad": ImageOps.pad,
}
_GREY = frozenset({"1", "L", "LA", "La"})
_EIGHT_BIT = _GREY | {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_MAX_PIXELS = 2**27  # a file of a few kB can claim more, to exhaust the memory of who opens it


def read_image(
    path: Path | str,
    size: tuple[int, ...] | None = None,
    channels: int | None = None,
    *,
    how: Resize | None = None,
    done: BadFiles | None = None,
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
    how
        What becomes of other proportions: `ddcnn.config.DataConfig.resize`.
    done
        Counts what was done to the image, if anything.

    Raises
    ------
    DataError
        The file cannot be read, is truncated, not an image, too large, has several pages, or other than 8 unsigned
        bits.
    """
    with bombs_are_errors():
        return _read(Path(path), size, channels, done or BadFiles(), how)


def read_sized(
    path: Path, size: tuple[int, ...] | None, channels: int | None, how: Resize | None, done: BadFiles
) -> tuple[UInt8[np.ndarray, "C H W"], tuple[int, ...]]:
    """Do as `read_image`, within `bombs_are_errors`, and return the size of the file's own image, too."""
    return _read_sized(path, size, channels, done, how)


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
    bad = bad or BadFiles()
    with bombs_are_errors():
        return read_all(paths, lambda path: _read(path, size, None, bad), bad)


def read_or_leave_images(
    paths: Sequence[Path], size: tuple[int, ...] | None, bad: BadFiles, source: str, how: Resize | None = None
) -> tuple[UInt8[Tensor, "m C H W"] | Lazy, Int64[np.ndarray, "m"]]:
    """Do as `read_images`, or leave large images on disk, as `read_or_leave`."""
    with bombs_are_errors():
        return read_or_leave(paths, lambda path: _read(path, size, None, bad, how), bad, source)


def _read(
    path: Path, size: tuple[int, ...] | None, channels: int | None, done: BadFiles, how: Resize | None = None
) -> np.ndarray:
    return _read_sized(path, size, channels, done, how)[0]


def _read_sized(
    path: Path, size: tuple[int, ...] | None, channels: int | None, done: BadFiles, how: Resize | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    if channels not in (None, 1, 3):
        raise DataError(f"an image file can be read as 1 or 3 channels, not {channels}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"an image file can be resized to (H, W) of at least 1 pixel, not {size}")
    if size is not None and math.prod(size) > _MAX_PIXELS:
        raise DataError(
            f"images of {size[0]}x{size[1]} pixels are too large, at most {_MAX_PIXELS:,} pixels; give a smaller size"
        )
    try:
        with open_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            _check(path, image, file)
            _scale_transparency(image, file)
            upright = _upright(path, image)
            opaque = _on_white(upright, done)
            pixels = _array(opaque, size, channels or (1 if image.mode in _GREY else 3), how)
            return pixels, (opaque.height, opaque.width)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except UnidentifiedImageError:
        what = "is empty" if path.stat().st_size == 0 else "is not an image"
        raise DataError(f"{path} {what}; remove it or replace it{_hint(path)}") from None
    except Exception as error:  # on damaged files the decoders raise anything, from SyntaxError to struct.error
        raise DataError(f"{path} cannot be read: {in_one_line(error)}; remove it or replace it") from None


def _check(path: Path, image: Image.Image, file: BinaryIO) -> None:
    if min(image.size) < 1:
        raise DataError(f"{path} has {image.height}x{image.width} pixels; remove it or replace it")
    if image.width * image.height > _MAX_PIXELS:
        raise _too_large(path)
    if fault := _depth_fault(image, file):
        raise DataError(
            f"{path} has {fault}; convert it to 8 bits, or give the values as float32 in an .npz file "
            "(data.source = npz:PATH)"
        )
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > 1:
        raise DataError(f"{path} has {pages} pages; save them as separate images, or as volumes in an .npz file")


def _depth_fault(image: Image.Image, file: BinaryIO) -> str | None:
    """Return what is wrong with the numbers of a file, as the file declares them."""
    bits = 8
    if image.format == "PNG":
        bits = _png_bits(file)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tags: Any = image.tag_v2
        bits = max(_numbers(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1)))
        kinds = set(_numbers(tags.get(TiffImagePlugin.SAMPLEFORMAT, 1)))
        if bits <= 8 and kinds - {1, 4}:  # unsigned, or not said
            return "signed numbers"
    if bits > 8 or image.mode not in _EIGHT_BIT:
        return f"more than 8 bits per channel ({f'{bits} bits' if bits > 8 else f'mode {image.mode}'})"
    return None


def _png_bits(file: BinaryIO) -> int:
    place = file.tell()
    file.seek(24)  # the signature, length and name of the first chunk, width, height
    bits = file.read(1)[0]
    file.seek(place)
    return bits


def _scale_transparency(image: Image.Image, file: BinaryIO) -> None:
    """Let the grey that stands for transparency be what its pixels became: of 2 or 4 bits, Pillow scales only these."""
    if image.format != "PNG" or image.mode != "L":
        return
    grey, bits = image.info.get("transparency"), _png_bits(file)
    if isinstance(grey, int) and bits in (2, 4):
        image.info["transparency"] = grey * 255 // (2**bits - 1)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _upright(path: Path, image: Image.Image) -> Image.Image:
    image.load()  # so that what is wrong with the pixels is not taken for EXIF's
    try:
        if _loses_orientation(image):
            raise ValueError("truncated, or a field that cannot be")  # of which Pillow only warns, and names no file
        return ImageOps.exif_transpose(image)
    except Exception as error:  # whatever a damaged header leads to
        raise DataError(
            f"{path}: its EXIF data are damaged ({in_one_line(error)}), so which way is up is not known; remove them, "
            "with exiftool -all= for example, or replace the file"
        ) from None


def _loses_orientation(image: Image.Image) -> bool:
    """Tell whether EXIF data end before their list of fields does, or name an orientation that Pillow leaves out."""
    exif = image.info.get("exif") or b""
    data = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    if data[:2] not in (b"II", b"MM"):
        return False  # none, or what Pillow refuses
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    fields = [struct.unpack_from(f"{order}H10x", data, start + 2 + 12 * n)[0] for n in range(count)]
    if ExifTags.Base.Orientation not in fields:
        return False
    return image.getexif().get(ExifTags.Base.Orientation) not in range(9)  # 0: not known


def _on_white(image: Image.Image, done: BadFiles) -> Image.Image:
    """Return an opaque image: ink that is drawn in the transparency only would be black on black otherwise."""
    if not image.has_transparency_data:
        return image
    colours = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    if colours.getchannel("A").getextrema() == (255, 255):
        return colours
    done.did(COMPOSITED)
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


def _array(image: Image.Image, size: tuple[int, ...] | None, channels: int, how: Resize | None) -> np.ndarray:
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        resize = _RESIZING[how or "stretch"]
        image = resize(image, (size[1], size[0]), Image.Resampling.BILINEAR)  # antialiased when it shrinks
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _hint(path: Path) -> str:
    """Return what a file is that is named like an image, if its first bytes tell."""
    with open_file(path) as file:
        start = file.read(16)
    if start[4:8] == b"ftyp":
        return ": it is HEIC or AVIF, convert it to PNG or JPEG"
    known = {b"%!PS": "PostScript", b"%PDF": "PDF", b"<svg": "SVG", b"\x89HDF": "HDF5", b"PK\x03\x04": "a ZIP archive"}
    return next((f": it is {name}" for magic, name in known.items() if start.startswith(magic)), "")


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} claims more than {_MAX_PIXELS} pixels; cut it into smaller images, or remove it")


@contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Leave it to our own limit which images are too large, while the block reads some, perhaps by threads."""
    # Pillow only warns of images up to twice its limit; ours decides, so the warning would be one line too many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # nor does it name the file of whose header it warns; what matters of that is an error of ours
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield

"""Where data lies on disk."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ddcnn.config import DataConfig
from ddcnn.errors import DataError
from ddcnn.machine import cache_folder

_KINDS: dict[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


class _NotAFileError(OSError):
    pass


def search_folders(config: DataConfig) -> list[Path]:
    """Return the folders in which a published data set is looked for; it is downloaded to the first."""
    own = [] if config.directory is None else [config.directory.expanduser()]
    return [*own, cache_folder()]


def source_path(config: DataConfig) -> Path:
    """Return PATH of a source such as ``folder:PATH``; raise a `DataError` if there is nothing."""
    path = Path(config.source.partition(":")[2]).expanduser()
    if not path.exists():
        raise DataError(f"{config.source}: {path} does not exist (looked from {Path.cwd()})")
    return path


def image_size(config: DataConfig) -> tuple[int, int] | None:
    """Return ``data.image_size`` as (H, W); one number stands for both.

    >>> image_size(DataConfig(image_size=64))
    (64, 64)
    """
    if config.image_size is None:
        return None
    size = config.image_size * 2 if len(config.image_size) == 1 else config.image_size
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"data.image_size should be H or HxW in pixels, at least 1, got {config.image_size}")
    return size[0], size[1]


def volume_size(config: DataConfig, default: tuple[int, int, int] | None = None) -> tuple[int, int, int] | None:
    """Return ``data.image_size`` of volumes; one number stands for all three axes.

    >>> volume_size(DataConfig(image_size="64x64x32")), volume_size(DataConfig(image_size=48))
    ((64, 64, 32), (48, 48, 48))
    """
    if config.image_size is None:
        return default
    size = config.image_size * 3 if len(config.image_size) == 1 else config.image_size
    if len(size) != 3 or min(size) < 1:
        raise DataError(f"data.image_size of volumes should be N or three numbers, at least 1, got {config.image_size}")
    return size[0], size[1], size[2]


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file to read it, or raise a `DataError`.

    What is no regular file is not opened: see `open_regular`.
    """
    try:
        return open_regular(path)
    except _NotAFileError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; remove it or name another") from None
    except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; mend this or remove it") from None


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file to read it, or raise an `OSError` that says what it is instead.

    A named pipe would wait for ever for who writes into it, and a device may do anything: neither is opened, whatever
    its name.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        found = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(found).st_mode  # of what was opened: names can be exchanged
        if stat.S_ISREG(mode):
            return open(found, "rb")  # noqa: PTH123 - it is open already
        os.close(found)
    what = next((name for name, test in _KINDS.items() if test(mode)), "something else")
    raise _NotAFileError(errno.EINVAL, f"it is {what}, not a file", str(path))


def digest(path: Path, algorithm: str = "md5") -> str:
    """Return the checksum of a file as hexadecimal digits."""
    with open_file(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()

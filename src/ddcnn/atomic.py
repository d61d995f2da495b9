"""Write a file whole or not at all, and say what to do when that is not possible."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_SPACE = "free some space, or choose a folder on another disk"
_RIGHTS = "make the folder writable, or choose another one"
_ADVICE = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit on the size of files, or choose a folder on another disk",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends well.

    A reader sees the old file or the complete new one: temporary file, fsync, rename, fsync of the folder.

    Raises
    ------
    OSError
        The file is as it was before, and no temporary file is left; only if the last fsync fails, it is the new one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # tempfile would hide it from other users
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def left_half_written(folder: Path, names: str) -> Iterator[Path]:
    """Yield what killed processes have left, in a folder and those in it, of files whose names match a pattern."""
    for path in folder.rglob(".*"):
        if re.fullmatch(rf"\.(?:{names})\.[0-9a-f]{{8}}", path.name) and path.is_file() and not path.is_symlink():
            yield path


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a crash of the machine, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system has this
            raise
    finally:
        os.close(handle)


def advice(error: OSError) -> str:
    """Return why writing failed, and what to do about it.

    >>> advice(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device; free some space, or choose a folder on another disk'
    """
    what_to_do = _ADVICE.get(error.errno or 0, "check the disk, or choose a folder on another one")
    reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return f"{reason}; {what_to_do}"

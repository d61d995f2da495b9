"""Write a file whole or not at all, and say what to do when that is not possible."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

_SPACE = "free some space, or choose a folder on another disk"
_RIGHTS = "make the folder writable, or choose another one"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit on the size of files, or choose a folder on another disk",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Raises
    ------
    OSError
        The file is as it was before, and no temporary file is left; only if the last fsync fails, it is the new one.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


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
    return f"{error.strerror or error}; {what_to_do}"

"""A whole folder: whether a path lies in it, who writes into it, and how what was in it is moved aside."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ddcnn.errors import RunError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_NOBODYS = frozenset({"lost+found"})  # made by the file system, at the root of a disk


class FolderLock:
    """Keeps other processes from writing into the same folder. The lock of a process that dies dies with it.

    Without ``fcntl``, or on a file system that has no locks, nobody is kept out.

    Parameters
    ----------
    path
        Its file, which is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = None
        self.path = path

    def acquire(self) -> bool:
        """Tell whether this object has the lock now; False: another one has it."""
        while fcntl is not None and self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                return not isinstance(error, BlockingIOError)
            if _is_at(handle, self.path):
                self._handle = handle
            else:  # removed by who had the lock
                os.close(handle)
        return True

    def release(self) -> None:
        """Let others have it; the file stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        """Let others have it, and leave no file, unless another one has it."""
        if self._handle is not None:
            self.path.unlink(missing_ok=True)
            self.release()

    def __del__(self) -> None:
        """Let others have it."""
        self.release()

    def is_taken(self) -> bool:
        """Tell whether another process, or another object of this one, has it; nothing is made."""
        if self._handle is not None or not self.path.exists():
            return False
        free = self.acquire()
        self.release()
        return not free


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies in it, whatever links and mounts it is named through."""
    path = path.resolve()
    try:
        there = folder.stat()
    except FileNotFoundError:
        return path.is_relative_to(folder.resolve())
    return any(os.path.samestat(one.stat(), there) for one in (path, *path.parents) if one.exists())


def check_apart(folder: Path, sources: Iterable[Path], images: Path | None) -> None:
    """Make sure that what is written and what is read lie apart.

    Parameters
    ----------
    folder
        What is written into.
    sources
        Files and folders that are read; none may lie in it.
    images
        A folder all of whose files are data; ``folder`` may not lie in it.

    Raises
    ------
    RunError
        They do not.
    """
    for source in sources:
        if is_within(source, folder):
            raise RunError(f"{source} would be read, but lies in {folder}; choose another --out")
    if images is not None and is_within(folder, images):
        raise RunError(f"{folder} would lie in {images}, among the images; choose another --out")


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, but for what file systems put there."""
    return sorted(path for path in folder.iterdir() if path.name not in _NOBODYS)


def move_aside(paths: Iterable[Path], folder: Path, into: Path) -> None:
    """Move files and folders out of a folder into a new one on the same disk: all of them, or none.

    The folder itself stays, so it may be a mount point, the working directory, or behind a link.

    Parameters
    ----------
    paths
        What to move, all of it below ``folder``; the last one is moved when the others are.
    into
        It is made, and they are put there by their path relative to ``folder``.

    Raises
    ------
    OSError
        One of them cannot be moved; the others are back where they were.
    """
    into.mkdir()
    made, moved = [into], list[tuple[Path, Path]]()
    try:
        for path in paths:
            target = into / path.relative_to(folder)
            if not target.parent.exists():
                target.parent.mkdir()
                made.append(target.parent)
            path.rename(target)
            moved.append((path, target))
    except BaseException:
        for path, target in reversed(moved):
            target.rename(path)
        for place in reversed(made):
            place.rmdir()
        raise


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

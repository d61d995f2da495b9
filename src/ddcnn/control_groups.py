"""The control groups that this process is in (Linux): what containers and schedulers allow it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of the group of this process and of those around it, each with its version, 1 or 2.

    Parameters
    ----------
    controller
        Such as ``"cpu"`` or ``"memory"``.
    """
    if not sys.platform.startswith("linux") or not _OWN.exists():
        return
    for line in _OWN.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from ((group, 2) for group in _around(_ROOT, path))
        elif controller in controllers.split(","):
            yield from ((group, 1) for group in _around(_ROOT / controller, path))


def words(file: Path) -> list[str]:
    """Return the words of a file of a group; none, if it is not there."""
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def number(file: Path) -> int | None:
    """Return the number in a file of a group; None: there is none, or no limit."""
    found = words(file)
    return int(found[0]) if len(found) == 1 and found[0].isdigit() else None


def _around(root: Path, path: str) -> Iterator[Path]:
    """Yield a group and those around it; in a container the path may be one that only the host sees."""
    inside = PurePosixPath(path.lstrip("/"))
    for group in (inside, *inside.parents):
        if ".." not in group.parts:
            yield root / group

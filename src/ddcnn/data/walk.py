"""Which files a folder holds: found at any depth and through links; whatever is passed over is counted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ddcnn.errors import DataError

_SYSTEM = frozenset(
    {"@eadir", "@recycle", "@tmp", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", "__macosx", "__pycache__", "found.000"}
)


@dataclass
class Found:
    """The files of a folder.

    Attributes
    ----------
    files
        Those that are named as wanted, in the order of their paths.
    others
        How many files were passed over, by suffix in lower case.
    system
        How many folders of operating systems were passed over, by name: thumbnails, waste baskets.
    hidden
        How many files and folders whose names begin with a dot were passed over.
    links
        How many links to a folder above, or to one that was read already, were passed over.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    links: int = 0

    def add(self, other: Found) -> None:
        """Count what was found elsewhere as well."""
        self.files += other.files
        self.others += other.others
        self.system += other.system
        self.hidden += other.hidden
        self.links += other.links

    def notes(self) -> tuple[str, ...]:
        """Return what was passed over, a line each."""
        lines = []
        if self.others:
            lines.append(f"passed over: {listed(self.others)}, by the suffix")
        if self.system:
            lines.append(f"passed over: {listed(self.system)}, folders of operating systems")
        if self.hidden:
            lines.append(f"passed over: {self.hidden:,} hidden files or folders")
        if self.links:
            lines.append(f"passed over: {self.links:,} links to folders above or read already")
        return tuple(lines)


def walk(folder: Path, suffixes: frozenset[str] | None) -> Found:
    """Return the files below a folder, through links; a folder that can be reached in two ways is read once.

    Parameters
    ----------
    suffixes
        In lower case, of the files that are wanted, whatever their case; None: all. A broken link and a named pipe are
        files here: whoever opens them says what is wrong.

    Raises
    ------
    DataError
        A folder cannot be listed: what it holds would be missing without a word.
    """
    found, waiting = Found(), [folder]
    seen = {_identity(above) for above in folder.resolve().parents}  # a link up would put all images into one class
    while waiting:
        now = waiting.pop()
        entries = list_folder(now)
        if (identity := _identity(now)) in seen:
            found.links += 1
            continue
        seen.add(identity)
        for entry in entries:
            suffix = PurePath(entry.name).suffix.lower()
            if entry.name.startswith("."):
                found.hidden += 1
            elif _is_folder(entry):
                if is_system(entry.name):
                    found.system[entry.name] += 1
                else:
                    waiting.append(Path(entry.path))
            elif suffixes is None or suffix in suffixes:
                found.files.append(Path(entry.path))
            else:
                found.others[suffix] += 1
    found.files.sort()
    return found


def subfolders(folder: Path) -> tuple[list[str], Found]:
    """Return the names of the folders in a folder, sorted, and what else is there.

    Raises
    ------
    DataError
        The folder cannot be listed.
    """
    names, beside = [], Found()
    for entry in list_folder(folder):
        if entry.name.startswith("."):
            beside.hidden += 1
        elif not _is_folder(entry):
            beside.others[PurePath(entry.name).suffix.lower()] += 1
        elif is_system(entry.name):
            beside.system[entry.name] += 1
        else:
            names.append(entry.name)
    return sorted(names), beside


def is_system(name: str) -> bool:
    """Tell whether a folder of that name belongs to an operating system or a storage device.

    >>> is_system("@eaDir"), is_system("cats")
    (True, False)
    """
    return name.lower() in _SYSTEM


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, or raise a `DataError`."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; allow it, or take the folder away") from None


def listed(counts: Counter[str]) -> str:
    """Return counts in words, the largest first.

    >>> listed(Counter({".heic": 12, "": 1}))
    '12 .heic, 1 without suffix'
    """
    return ", ".join(f"{count:,} {what or 'without suffix'}" for what, count in counts.most_common())


def _identity(folder: Path) -> tuple[int, int]:
    place = folder.stat()
    return place.st_dev, place.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False

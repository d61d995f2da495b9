"""Arrays that took long to make, kept in the cache folder under a name that says what they depend on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.atomic import replacing
from ddcnn.machine import cache_folder

_log = logging.getLogger(__name__)
Arrays = Mapping[str, np.ndarray]


def cached(name: str, what: str, fits: Callable[[Arrays], bool], make: Callable[[], Arrays]) -> Arrays:
    """Return arrays that were kept, or make and keep them.

    Parameters
    ----------
    name
        Of the file below the cache folder.
    what
        They are, for messages.
    fits
        Tells whether what was kept can be used; where it raises anything, the file is damaged.
    make
        Makes them anew.
    """
    path = cache_folder() / name
    found = _read(path, fits)
    if found is not None:
        return found
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **dict[str, Any](made))
    except OSError as error:  # a cache that cannot be written costs time, not results
        _log.warning("%s cannot be kept in %s: %s", what, path, error)
    return made


def key_of(paths: Iterable[tuple[str, Path]], *others: str) -> str:
    """Return a digest of what files hold, as far as their names, sizes and times tell, and of other text."""
    lines = [*others]
    for name, path in paths:
        stat = path.stat()
        lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _read(path: Path, fits: Callable[[Arrays], bool]) -> Arrays | None:
    if not path.is_file():
        return None  # not there, or a named pipe
    try:
        # opened here, because numpy leaves a damaged file open; the zip format has a CRC-32 of every array
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
        return found if fits(found) else None
    except Exception as error:  # a damaged archive raises anything
        _log.warning("%s is damaged and made again: %s", path, error)
        return None

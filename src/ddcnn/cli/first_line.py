"""The first line of a command, before PyTorch is loaded, which takes seconds: what is read."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ddcnn.text import printable

if TYPE_CHECKING:
    from ddcnn.config import DataConfig

_LONGEST = 0.3  # seconds to count files; of a slow disk, they are not counted


def first_line(data: DataConfig, *, quiet: bool) -> None:
    """Say on stderr what is read, to who waits at a terminal; of several ranks one does."""
    if quiet or not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        return
    kind, _, path = data.source.partition(":")
    folder = Path(path).expanduser()
    count = _files(folder) if kind == "folder" and folder.is_dir() else None
    what = data.source if count is None else f"{count:,} files of {data.source}"
    print(f"reading {printable(what)}", file=sys.stderr, flush=True)


def _files(folder: Path) -> int | None:
    """Return how many files there are that are not hidden; None: counting takes too long."""
    count, end = 0, time.monotonic() + _LONGEST
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(not name.startswith(".") for name in files)
        if time.monotonic() > end:
            return None
    return count

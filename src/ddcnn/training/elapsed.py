"""How long a part of a run has taken in earlier processes: what is done in parallel has no checkpoint of its own."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddcnn.atomic import write_atomic
from ddcnn.data.files import open_regular

_EVERY = 5.0  # seconds: so much is lost if the process is killed
_MOST = 64  # bytes of a number


@contextmanager
def elapsed_across_restarts(path: Path | None) -> Iterator[float]:
    """Keep the seconds of a block in a file; provide those of the processes that have been in it before.

    None, or a file that cannot be read or written: as if this process were the first.

    >>> with elapsed_across_restarts(None) as earlier:
    ...     earlier
    0.0
    """
    if path is None:
        yield 0.0
        return
    file, earlier, start, done = path, _read(path), time.monotonic(), threading.Event()

    def write() -> None:
        with contextlib.suppress(OSError):  # time is not worth a run
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, f"{earlier + time.monotonic() - start:.1f}".encode())

    def watch() -> None:
        while not done.wait(_EVERY):
            write()

    thread = threading.Thread(target=watch, name="ddcnn-clock", daemon=True)
    thread.start()
    try:
        yield earlier
    finally:
        done.set()
        thread.join()
        write()


def _read(path: Path) -> float:
    try:
        with open_regular(path) as file:
            seconds = float(file.read(_MOST))
    except (OSError, ValueError):
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0

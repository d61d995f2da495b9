"""The machine: its processor in words, its memory, and where it keeps what can be made again."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

_LOOK = 0.5  # seconds between two looks at how much memory is in use
_NEAR = 0.8  # of the limit
MOST_AT_ONCE = 500  # samples that are looked at
_BYTES_AT_ONCE = 2**23  # of them; what a first layer makes of volumes is many times as large


def cache_folder() -> Path:
    """Return the folder for downloads, prepared images and measurements: ``$DDCNN_DATA``, or ``~/.cache/ddcnn``."""
    return Path(os.environ.get("DDCNN_DATA") or "~/.cache/ddcnn").expanduser()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """Return the name of the processor, as Linux or Python knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform.startswith("linux") and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def resident_memory() -> int:
    """Return the bytes of this process that are in memory now; 0 where that is not known (other than Linux)."""
    statm = Path("/proc/self/statm")
    if not sys.platform.startswith("linux") or not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Give pages back to the system that the C library keeps for later, where that is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def looked_at_once(shape: Sequence[int]) -> int:
    """Return how many samples (C, *S) a network looks at at once where nothing is trained, so that memory suffices.

    >>> looked_at_once((3, 32, 32)), looked_at_once((1, 64, 64, 32)), looked_at_once((1, 512, 512, 256))
    (500, 16, 1)
    """
    return min(MOST_AT_ONCE, max(1, _BYTES_AT_ONCE // max(4 * math.prod(shape), 1)))


@contextmanager
def staying_below(limit: int | None) -> Iterator[None]:
    """Call `return_freed_memory` now and then while this process is near a limit, in bytes; None: there is none.

    What is freed in pieces of many sizes, such as batches that a thread reads ahead, leaves gaps that are kept: over
    thousands of steps resident memory grows by half, though no more is in use.
    """
    if limit is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK):
            if resident_memory() > _NEAR * limit:
                return_freed_memory()

    thread = threading.Thread(target=watch, name="ddcnn-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

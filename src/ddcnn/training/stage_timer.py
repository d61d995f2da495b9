"""How long a stage took, and how much memory it needed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from ddcnn.machine import return_freed_memory


class _Peak:
    """The largest memory of this process before the stage that began last: the kernel forgets it then."""

    before = 0


_PEAK = _Peak()


@dataclass
class StageTimer:
    """A measured part of a run, as a context.

    Attributes
    ----------
    name
        Such as ``"local"``.
    epochs
        Epochs over the images; the user of the context sets it.
    seconds
        Wall-clock time.
    critical_path_seconds
        Time if each subdomain had a worker like this machine to itself; None until it is known.
    peak_memory_bytes
        Largest memory during the stage: of the GPU, or resident memory of this process (Linux); else None. Of workers,
        that of the largest one.
    earlier_seconds
        Time that the stage took before it was interrupted.

    >>> with StageTimer("demo", torch.device("cpu")) as stage:
    ...     pass
    >>> stage.seconds < 1
    True
    """

    name: str
    device: torch.device
    epochs: int = 0
    seconds: float = 0.0
    critical_path_seconds: float | None = None
    peak_memory_bytes: int | None = None
    earlier_seconds: float = 0.0

    def __enter__(self) -> StageTimer:
        """Start the clock, and forget earlier peaks; memory that was freed, but kept, is no part of this stage."""
        if self.device.type == "cpu":
            return_freed_memory()
        self._resettable = _reset_peak(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = self.earlier_seconds + time.perf_counter() - self._start
        if self._resettable:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, peak_memory(self.device) or 0) or None

    def add(self, earlier_seconds: float, peak_memory_bytes: int | None) -> None:
        """Count what happened before this process took over, or in another one."""
        self.earlier_seconds += earlier_seconds
        self.peak_memory_bytes = max(self.peak_memory_bytes or 0, peak_memory_bytes or 0) or None


def _reset_peak(device: torch.device) -> bool:
    _PEAK.before = peak_of_process() or 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # "5" resets the peak resident set size, see proc(5)
    except OSError:
        return False
    return True


def peak_of_process() -> int | None:
    """Return the largest resident memory of this process since it began, in bytes (Linux); None: not known."""
    now = peak_memory(torch.device("cpu"))
    return None if now is None else max(now, _PEAK.before)


def peak_memory(device: torch.device) -> int | None:
    """Return the largest memory since a timer began: of the GPU, or resident of this process; None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None

"""Notices when the steps of a stage take far longer than its first ones did, and says so once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ddcnn.cores import CoreTimes, threads_beside

_TIMES = 3.0  # as long as the first steps
_FIRST = 2.0  # seconds of first steps; the very first one warms up
_LATELY = 5.0  # seconds of steps that are compared with them
_LEAST = 5  # steps in either
_CLOCK, _LOOK = time.perf_counter, CoreTimes.now


class StepWatch:
    """Measures steps; only they count, not what lies between them, such as a checkpoint or an evaluation.

    Medians are compared: a single step during which the machine did something else is no slowness.

    Parameters
    ----------
    clock, look
        Time in seconds, and what the cores have done until now.

    >>> seconds = iter([0.0, 9.0] + [t for i in range(95) for t in (i, i + 0.5)] + [0.0, 2.0] * 5)
    >>> watch = StepWatch(lambda: next(seconds), lambda: None)
    >>> lines = []
    >>> for _ in range(101):
    ...     watch.begin()
    ...     lines.append(watch.end())
    >>> set(lines[:-1]), lines[-1]
    ({None}, 'a step takes 2 s, 4.0 times as long as at first; whether other programs are the cause is not known here')
    """

    def __init__(
        self, clock: Callable[[], float] | None = None, look: Callable[[], CoreTimes | None] | None = None
    ) -> None:
        self._clock, self._look = clock or _CLOCK, look or _LOOK
        self._warm = self._said = False
        self._first: float | None = None  # median of the first steps
        self._steps: list[float] = []
        self._cores: CoreTimes | None = None

    def begin(self) -> None:
        """Tell that a step begins."""
        self._began = self._clock()

    def end(self) -> str | None:
        """Tell that it is done; return the line that the user should read, which comes at most once."""
        seconds = self._clock() - self._began
        if self._said:
            return None
        if not self._warm:
            self._warm = True
            return None
        self._steps.append(seconds)
        if len(self._steps) < _LEAST or sum(self._steps) < (_FIRST if self._first is None else _LATELY):
            return None
        typical, self._steps = statistics.median(self._steps), []
        if self._first is None:
            self._first = typical
        before, self._cores = self._cores, self._look()
        if typical < _TIMES * self._first:
            return None
        self._said = True
        others = None if before is None or self._cores is None else self._cores.others_since(before)
        cores = 0 if before is None else before.cores
        ratio = typical / self._first
        return f"a step takes {typical:.2g} s, {ratio:.1f} times as long as at first; {_cause(others, cores)}"


def _cause(others: float | None, cores: int) -> str:
    """Return the likely cause, from how many cores others keep busy."""
    threads = torch.get_num_threads()
    if others is None:
        return "whether other programs are the cause is not known here"
    busy = f"other programs keep {others:.1f} of {cores} cores busy"
    if others + threads < cores + 0.5:
        return (
            f"{busy}, which does not explain it; it may be slow files, swapped memory, a throttled processor, or that "
            "this process was paused or may use only a part of the processor"
        )
    line = f"{busy}, and this one computes with {threads} thread{'s' if threads > 1 else ''}"
    best = threads_beside(others, cores)
    return line + (f"; go on with --resume and --threads {best}" if best < threads else "")

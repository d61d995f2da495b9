"""The cores of this machine: how many this process may use, and how many others keep busy."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ddcnn.control_groups import control_groups, words

_STAT = Path("/proc/stat")
_SHORT, _LONG = 0.2, 0.8  # seconds of a look at the load, and of another one before it is believed
SOME = 0.5  # of a core: less is what any machine does beside


def allowed_cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many cores this process may use: those it may run on, or fewer where a control group limits it."""
    quota = core_quota()
    return allowed_cores() if quota is None else min(allowed_cores(), max(1, round(quota)))


def core_quota() -> float | None:
    """Return the cores' worth of time that the control groups of this process allow (Linux); None: no limit.

    It is what ``docker run --cpus`` and Kubernetes' limits set: ``cpu.max`` (version 2) or ``cpu.cfs_quota_us`` of the
    group itself or of one around it.
    """
    limits = []
    for group, version in control_groups("cpu"):
        if version == 2:
            limits.append(_quotient(words(group / "cpu.max")))
        else:
            pair = [words(group / f"cpu.cfs_{what}_us") for what in ("quota", "period")]
            limits.append(_quotient([found[0] for found in pair if found]))
    return min((limit for limit in limits if limit is not None), default=None)


def _quotient(pair: list[str]) -> float | None:
    """Return quota / period.

    >>> _quotient(["150000", "100000"]), _quotient(["max", "100000"]), _quotient(["-1", "100000"])
    (1.5, None, None)
    """
    quota, period = (int(word) if word.isdigit() else 0 for word in pair) if len(pair) == 2 else (0, 0)
    return quota / period if quota and period else None


@dataclass(frozen=True)
class CoreTimes:
    """What the cores that this process may run on have done until now; two of them tell what happened in between.

    Attributes
    ----------
    cores
        Their number.
    busy, total
        Time in ticks, summed over the cores: spent on processes or taken by a host, and all. Processes that have
        lowered their priority count as well: where sessions are scheduled as groups, they do not give way to others.
    own
        Seconds of this process, all threads.
    when
        Seconds of a clock.
    """

    cores: int
    busy: float
    total: float
    own: float
    when: float

    @classmethod
    def now(cls) -> CoreTimes | None:
        """Look; None where that is not possible (other than Linux)."""
        if not sys.platform.startswith("linux") or not _STAT.exists():
            return None
        mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
        ticks = [[int(number) for number in rest[:8]] for name, *rest in lines if name in mine]
        free = sum(idle + iowait for _user, _nice, _system, idle, iowait, *_ in ticks)
        total = sum(map(sum, ticks))
        return cls(len(ticks), total - free, total, time.process_time(), time.perf_counter())

    def others_since(self, earlier: CoreTimes) -> float | None:
        """Return how many cores others have kept busy since then; None: the machine does not tell.

        >>> CoreTimes(2, 90, 200, 0.5, 1.0).others_since(CoreTimes(2, 0, 0, 0.0, 0.0))
        0.4
        """
        ticks, seconds = self.total - earlier.total, self.when - earlier.when
        if ticks <= 0 or seconds <= 0:
            return None
        busy = self.cores * (self.busy - earlier.busy) / ticks
        return min(float(self.cores), max(0.0, busy - (self.own - earlier.own) / seconds))


def busy_with_others() -> float | None:
    """Return how many of the cores that this process may run on others keep busy now; None: it is not known.

    It takes 0.2 s. Where that is half a core or more, it is looked at for another 0.8 s, and what is less counts: a
    program that just starts or ends is no load.
    """
    found = _look(_SHORT)
    if found is None or found < SOME:
        return found
    again = _look(_LONG)
    return found if again is None else min(found, again)


def _look(seconds: float) -> float | None:
    before = CoreTimes.now()
    time.sleep(seconds)
    after = CoreTimes.now()
    return None if before is None or after is None else after.others_since(before)


def threads_beside(others: float, cores: int) -> int:
    """Return with how many threads to compute where others keep so many of the cores busy.

    >>> [threads_beside(others, 2) for others in (0.0, 0.4, 1.0, 2.0)]
    [2, 2, 1, 1]
    """
    return max(1, cores // 2, cores - int(others + SOME))

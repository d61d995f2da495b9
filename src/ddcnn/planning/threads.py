"""With how many threads this process computes: all cores, or fewer where other programs keep some of them busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ddcnn.cores import allowed_cores, busy_with_others, threads_beside, usable_cores

_CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by the user, before Python started


@dataclass(frozen=True)
class Threads:
    """A number of threads.

    Attributes
    ----------
    count
        So many.
    line
        Why, in one line; None: it is the usual number, and there is nothing to say.
    decided
        Whether it was decided here, so that a run that goes on must be told.
    """

    count: int
    line: str | None = None
    decided: bool = False

    @property
    def choices(self) -> dict[str, str]:
        """What the run says of it."""
        return {} if self.line is None else {"threads": self.line}

    @property
    def to_keep(self) -> int | None:
        """What the run remembers; None: the usual number."""
        return self.count if self.decided else None


def choose_threads(asked: int | None, device: torch.device, *, alone: bool = True) -> Threads:
    """Decide before a run with how many threads this process computes.

    A network whose threads wait for each other many times a second is slowed down by another program on the same cores
    far more than by half, so fewer threads are faster: `benchmarks/busy.py`. It is decided once: another number of
    threads adds in another order, and is equal within rounding only.

    Parameters
    ----------
    asked
        ``compute.threads`` where it means this process; None: not asked for.
    device
        Where the networks are; on a GPU, threads matter little, and nothing is decided.
    alone
        Whether there are no other ranks, which have shared the cores already.
    """
    usual = torch.get_num_threads()
    if asked is not None:
        return Threads(asked, f"{asked}: as asked")
    if not alone or device.type != "cpu" or usual == 1 or _chosen_by_user():
        return Threads(usual)
    most, best, busy = _best(usual)
    if best == usual:
        return Threads(usual)
    if best == most:
        return Threads(best, f"{best}: this process may use no more of {allowed_cores()} cores", decided=True)
    return Threads(best, f"{best} instead of {most}: {busy}; --threads sets another number", decided=True)


def keep_threads(asked: int | None, decided: int | None, device: torch.device, *, alone: bool = True) -> Threads:
    """Return with how many threads a run goes on: as many as it began with, so that it ends bit-equal.

    Where fewer are likely to be faster now, the line says so.

    Parameters
    ----------
    asked, device, alone
        As in `choose_threads`; what is asked for wins, and so does the environment.
    decided
        What was decided when it began; None: nothing, the usual number was taken.
    """
    usual = torch.get_num_threads()
    if asked is not None:
        return Threads(asked, f"{asked}: as asked")
    if not alone or device.type != "cpu" or _chosen_by_user():
        return Threads(usual)
    kept = usual if decided is None else decided
    if kept > 1:
        _, best, busy = _best(kept)
        if best < kept:
            line = f"{kept}, as the run began, though {busy}; --threads {best} is likely faster, equal within rounding"
            return Threads(kept, line)
    return Threads(kept)


def _best(usual: int) -> tuple[int, int, str]:
    """Return the most threads that are of use, the best number of them now, and what others do."""
    most, cores = min(usual, usable_cores()), allowed_cores()
    others = busy_with_others() or 0.0  # None: it is not known
    return most, min(most, threads_beside(others, cores)), f"other programs kept {others:.1f} of {cores} cores busy"


def _chosen_by_user() -> bool:
    return any(os.environ.get(name) for name in _CHOSEN)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with so many threads.

    >>> before = torch.get_num_threads()
    >>> with computing_with(3):
    ...     torch.get_num_threads()
    3
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)

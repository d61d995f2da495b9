"""Do the next pieces of work in the background while the present one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ddcnn.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

DEPTH = 2


def readers() -> int:
    """Return how many threads read or decode files side by side: one per core of this process, at most 8."""
    return max(1, min(8, usable_cores()))


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int = DEPTH, threads: int = 1
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in order, computed by threads that are at most ``depth`` results ahead.

    An exception in a thread is raised here, in its turn. The threads end with the iteration, also when that is closed
    early (`contextlib.closing`).

    >>> list(prefetch(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    for future in futures_ahead(function, items, depth=depth, threads=threads):
        yield future.result()


def futures_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int, threads: int
) -> Generator[Future[Result], None, None]:
    """Do as `prefetch`, and leave it to the caller what becomes of an exception."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ddcnn-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()


def in_threads(function: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call ``function(item)`` for all items, by several threads; the first exception ends it."""
    threads = readers()
    for _ in prefetch(function, items, depth=4 * threads, threads=threads):
        pass

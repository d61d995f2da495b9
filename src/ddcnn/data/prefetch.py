"""Do the next pieces of work in the background while the present one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

DEPTH = 2


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int = DEPTH
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in order, computed by one thread that is at most ``depth`` results ahead.

    An exception in the thread is raised here, in its turn. The thread ends with the iteration, also when that is
    closed early (`contextlib.closing`).

    >>> list(prefetch(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ddcnn-ahead") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

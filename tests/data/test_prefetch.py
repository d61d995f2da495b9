"""Work in the background: in order, bounded, ended with its user."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from ddcnn.data.prefetch import prefetch


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ddcnn-ahead")]


def test_order_and_one_thread() -> None:
    names = set()

    def double(item: int) -> int:
        names.add(threading.current_thread().name)
        return 2 * item

    assert list(prefetch(double, range(20))) == list(range(0, 40, 2))
    assert len(names) == 1
    assert threading.current_thread().name not in names
    assert list(prefetch(double, [])) == []
    assert not _threads()


def test_no_more_is_begun_than_was_asked_for() -> None:
    begun: list[int] = []
    with closing(prefetch(begun.append, range(100), depth=2)) as results:
        for used in range(1, 5):
            next(results)
            time.sleep(0.02)
            assert len(begun) <= used + 2
    assert len(begun) <= 6
    assert not _threads()


def test_an_error_comes_in_its_turn_and_ends_the_thread() -> None:
    def inverse(item: int) -> float:
        return 1 / item

    results = prefetch(inverse, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not _threads()


def test_who_stops_early_leaves_no_thread() -> None:
    with closing(prefetch(abs, range(100))) as results:
        assert next(results) == 0
        assert _threads()
    assert not _threads()

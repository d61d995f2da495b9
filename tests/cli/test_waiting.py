"""Threads that wait sleep beside other programs, and only there."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ddcnn.cli import waiting
from ddcnn.cli.waiting import let_threads_sleep

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Return the policy that is set on a machine where others keep so many cores busy."""
    for name in NAMES:
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)

    def decided(others: float | None, *, loaded: tuple[str, ...] = (), **environment: str) -> str | None:
        monkeypatch.setattr(waiting, "busy_with_others", lambda: others)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        let_threads_sleep(loaded)
        return os.environ.get("OMP_WAIT_POLICY")

    return decided


@pytest.mark.parametrize(("others", "expected"), [(0.0, None), (0.4, None), (None, None), (0.5, "passive")])
def test_beside_others_threads_sleep(policy: Callable, others: float | None, expected: str | None) -> None:
    assert policy(others) == expected


def test_what_the_user_has_set_stays(policy: Callable) -> None:
    assert policy(2.0, OMP_WAIT_POLICY="active") == "active"
    assert policy(2.0, OMP_WAIT_POLICY="", GOMP_SPINCOUNT="1000") == ""
    assert policy(2.0, GOMP_SPINCOUNT="", KMP_BLOCKTIME="0") == ""


def test_it_would_be_of_no_use(policy: Callable) -> None:
    assert policy(2.0, loaded=("torch",)) is None  # which has read it already
    assert policy(2.0, OMP_NUM_THREADS="1") is None

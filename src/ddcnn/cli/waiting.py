"""How threads wait for each other: decided before PyTorch is loaded, whose OpenMP reads it then."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext

from ddcnn.cores import SOME, busy_with_others

_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep(loaded: Container[str] = sys.modules) -> None:
    """Let threads that wait for each other sleep, here and in workers, where other programs keep cores busy.

    By default they go round in circles for some milliseconds. That is faster on a quiet machine; beside another program
    they keep each other from the work that they wait for. What the user has set stays.
    """
    if "torch" in loaded or any(os.environ.get(name) for name in _BY_USER) or os.environ.get("OMP_NUM_THREADS") == "1":
        return
    if (busy_with_others() or 0.0) >= SOME:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def with_threads(count: int | None) -> AbstractContextManager[None]:
    """Compute with so many threads; None: with as many as there are."""
    if count is None:
        return nullcontext()
    from ddcnn.planning import computing_with

    return computing_with(count)

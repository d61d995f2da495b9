"""What is decided before PyTorch is loaded, which reads it then: how threads wait for each other, pages of memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ddcnn.cores import SOME, busy_with_others

if TYPE_CHECKING:
    from ddcnn.config import Config

_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # of PyTorch, which reads it when it makes the first tensor
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


def use_huge_pages(config: Config) -> None:
    """Let PyTorch, here and in workers, ask for pages of 2 MiB where images are volumes.

    Their tensors are so large that the C library returns them to the system at once, which has to clear the same pages
    in every step, half of the time: `benchmarks/huge_pages.py`. With small images there is nothing to gain.
    """
    cuts = config.decomposition
    given = (cuts.grid, cuts.coarse, cuts.options.get("parts"))
    if any(isinstance(one, list | tuple) and len(one) == 3 for one in given):
        os.environ.setdefault(_HUGE_PAGES, "1")

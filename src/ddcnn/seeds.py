"""Random numbers that depend on the run's seed and on their purpose, never on where or when they are drawn."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_drawing = threading.RLock()


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Return a seed for one purpose.

    >>> derive_seed(0, "local", 3) == derive_seed(0, "local", 3) != derive_seed(0, "local", 4)
    True
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:7], "little")


@contextmanager
def own_random_numbers(device: torch.device | None = None, seed: int | None = None) -> Iterator[None]:
    """Let layers draw from PyTorch's own generators, such as dropout does, and leave these as they were.

    These generators are those of the process, so that one thread at a time is within; another one waits. Two trainings
    in threads of one process thus come to what each comes to alone.

    Parameters
    ----------
    device
        Whose generator is used beside that of the CPU.
    seed
        What they begin with; None: as they are.
    """
    import torch

    with _drawing, torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def generators_outside_torch() -> tuple[object, ...]:
    """Return the states of the generators of Python and NumPy: who repeats operators of PyTorch does not move them."""
    import numpy as np

    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    state = numpy["state"]
    return random.getstate(), state["key"].tobytes(), state["pos"], numpy["has_gauss"]


def _let_children_draw() -> None:
    """Take a new lock in a process that was forked while another thread was drawing: here, nobody gives it back."""
    global _drawing  # noqa: PLW0603 - the lock of this process
    _drawing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_children_draw)

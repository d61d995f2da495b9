"""What this machine allows: memory bandwidth, matrix peak, and the least time of a training step by them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import in_turns
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_BYTES = 2**28  # of each array: more than any cache holds


def bandwidth(device: torch.device) -> float:
    """Return bytes per second that an addition of large arrays moves, as STREAM counts: two read, one written."""
    a, b, c = (torch.ones(_BYTES // 4, device=device) for _ in range(3))
    fastest = min(in_turns({"add": partial(_added, a, b, c)}, 10, seconds=1)["add"])
    return 3 * _BYTES / float(fastest)


def _added(a: Tensor, b: Tensor, c: Tensor) -> None:
    torch.add(a, b, out=c)
    if c.is_cuda:
        torch.cuda.synchronize(c.device)


class Work(TorchDispatchMode):
    """Within it, the operators that run are noted: what each computes, reads and writes.

    Run networks in turn within it: the operations of grouped convolutions are not counted as they are done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[float, float]] = []  # operations, bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and note."""
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        count = flop_registry.get(func.overloadpacket)
        operations = count(*args, **(kwargs or {}), out_val=result) if count else 0
        written = [] if "empty" in func.__name__ else tree_leaves(result)
        moved = (t.nbytes for t in (*tree_leaves((args, kwargs)), *written) if isinstance(t, Tensor))
        self.operators.append((operations, sum(moved)))
        return result


def work(step: Callable[[], object]) -> list[tuple[float, float]]:
    """Return the operations and the bytes of each operator of a step."""
    with Work() as counter:
        step()
    return counter.operators


def roof(operators: list[tuple[float, float]], peak: float, bytes_per_second: float) -> float:
    """Return the least seconds: each operator computes at the peak, or moves its tensors once, whichever is longer."""
    return sum(max(operations / peak, moved / bytes_per_second) for operations, moved in operators)

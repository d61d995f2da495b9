"""What a CUDA graph does, on a CPU: it repeats operators on the memory that they had, whatever the code would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Captures as `ddcnn.training.replay.Capture` describes it; like a GPU, it refuses to be waited for.

    Attributes
    ----------
    launched
        How often something was repeated.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launched = 0
        self._operators: list[tuple[Any, Any, Any, Any]] = []

    def __call__(self, run: Callable[[], Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
        """Run once, and return a function that repeats it."""
        self._operators = []
        with self:
            found = run()
        operators = self._operators

        def launch() -> None:
            self.launched += 1
            with torch.no_grad():
                for func, args, kwargs, results in operators:
                    _repeat(func, args, kwargs, results)

        return found, launch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note it."""
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        found = func(*args, **(kwargs or {}))
        self._operators.append((func, args, kwargs or {}, found))
        return found


def _repeat(func: Any, args: Any, kwargs: Any, results: Any) -> None:
    given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
    new = func(*args, **kwargs)
    for old, value in zip(tree_leaves(results), tree_leaves(new), strict=True):
        if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in given:  # else it is there already
            old.copy_(value)

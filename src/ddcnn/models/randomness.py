"""Does a network draw random numbers in eval mode? Then it classifies the same image in another way each time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddcnn.seeds import own_random_numbers


def draws_in_eval_mode(network: nn.Module, shape: Sequence[int], *, compute: bool = False) -> bool:
    """Tell whether a network draws random numbers of PyTorch in eval mode.

    Those of NumPy and Python are not seen: their generators are the whole process's, and other threads draw as well.
    The network stays as it is, and so does the generator. Of one that takes no such input nothing is known: False.

    Parameters
    ----------
    shape
        Of images that it takes, (B, C, *S).
    compute
        Compute with zeros; else this is done only where the network must see numbers (it runs on the device ``meta``).

    Examples
    --------
    >>> draws_in_eval_mode(nn.Dropout(), (1, 3)), draws_in_eval_mode(nn.LPPool1d(1, 2), (1, 4))
    (False, False)
    """
    for device in ("cpu",) if compute else ("meta", "cpu"):
        with suppress(Exception):  # whatever a network raises of what it cannot do there
            return _draws(copy.deepcopy(network).to(device), torch.zeros(*shape, device=device))
    return False


def _draws(network: nn.Module, x: Tensor) -> bool:
    with torch.no_grad(), own_random_numbers(), _Watching() as watching:
        network.eval()(x)
    return bool(watching.drawn)


class _Watching(TorchDispatchMode):
    """Notes whether an operator draws from a generator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: bool = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute."""
        self.drawn |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))

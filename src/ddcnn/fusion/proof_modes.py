"""What the proof changes in PyTorch while it runs: nothing is random, and convolutions take little memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddcnn.fusion.operators import names


class NothingRandom(TorchFunctionMode):
    """Within it nothing is random."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace what draws random numbers."""
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _DRAWS and (func in (torch.rand, torch.randn) or isinstance(args[0], Tensor)):
            return _filled(func.__name__, args, kwargs)
        return func(*args, **kwargs)


class SampleBySample(TorchDispatchMode):
    """Within it convolutions take one sample after the other.

    In float64, on CPUs, PyTorch unfolds their input, 27 times as large for 3x3x3, for all samples and groups at once.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute; below autograd, so both ways."""
        if func is torch.ops.aten.convolution.default:
            return torch.cat([func(part, *args[1:]) for part in args[0].split(1)])
        if func is torch.ops.aten.convolution_backward.default:
            return _convolution_backward(func, *args)
        return func(*args, **(kwargs or {}))


def _convolution_backward(func: Any, gradient: Tensor, x: Tensor, *options: Any) -> tuple[Tensor | None, ...]:
    """Return the gradients of input, weight and bias; sums of the latter two grow in place."""
    inputs: list[Tensor | None] = []
    sums: list[Tensor | None] = []
    for pair in zip(gradient.split(1), x.split(1), strict=True):
        own, *others = func(*pair, *options)
        inputs.append(own)
        sums = [a if a is None else a.add_(b) for a, b in zip(sums, others, strict=True)] if sums else others
    known = [own for own in inputs if own is not None]
    return torch.cat(known) if known else None, *sums


_DROPOUTS = set(
    names(F, torch, of="dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout")
)
_VALUES = {"rand": 0.5, "uniform": 0.5, "bernoulli": 1.0, "rand_like": 0.5, "exponential": 0.5}
_DRAWS = set(names(torch, Tensor, of="rand randn rand_like randn_like bernoulli uniform normal exponential"))


def _filled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the middle of what could have been drawn."""
    value = _VALUES.get(name.rstrip("_"), 0.0)
    if name in ("rand", "randn"):
        kwargs.pop("generator", None)
        return torch.zeros(*args, **kwargs) + value
    with torch.no_grad():
        return args[0].fill_(value) if name.endswith("_") else torch.full_like(args[0], value)

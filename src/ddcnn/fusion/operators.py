"""The operator table: what each operator becomes when it is applied to the values of N networks at once.

A network's own code runs once, on `Stacked` values; `Fusing` hands each operator to its rule. Rules that matter for
speed stand in `layers`, `pointwise` and `shapes`; an operator without a rule is mapped over the N networks by
``torch.vmap``, which is exact, too. What no rule and no map can do, such as reading a number out of a tensor to decide
what to compute, raises `NotSupportedError`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ddcnn.fusion.stacked import NotSupportedError, Stacked, lead

Rule = Callable[..., Any]

OPERATORS: dict[Any, Rule] = {}
LAYERS: dict[type[nn.Module], Rule] = {}
DRAWS: dict[Any, Rule] = {}  # random numbers, whatever they are asked for with


def fuses(*targets: Any) -> Callable[[Rule], Rule]:
    """Enter a rule in the operator table.

    Parameters
    ----------
    targets
        Functions of torch, or classes of layers. The rule of a function is called as ``rule(function, *args,
        **kwargs)`` and may return ``NotImplemented``; the rule of a layer as ``rule(layer, *args, **kwargs)``, with
        parameters and buffers of all N networks in the layer. Values of N networks come and go as `Stacked`.

    Examples
    --------
    A layer that scales its channels, of which the rule makes one multiplication of N*C channels:

    >>> class Scale(nn.Module):
    ...     def __init__(self, channels):
    ...         super().__init__()
    ...         self.by = nn.Parameter(torch.ones(channels))
    ...
    ...     def forward(self, x):
    ...         return x * self.by[:, None, None]
    >>> @fuses(Scale)
    ... def scale(layer, x):
    ...     by = layer.by.physical.flatten()  # (N, C) -> (N*C,)
    ...     return Stacked(x.folded() * by[:, None, None], x.members, None)
    >>> import ddcnn
    >>> ddcnn.fuse([Scale(3) for _ in range(2)], backend="fused")(torch.ones(5, 2, 3, 4, 4)).shape
    torch.Size([5, 2, 3, 4, 4])
    >>> del LAYERS[Scale]
    """

    def enter(rule: Rule) -> Rule:
        for target in targets:
            (LAYERS if isinstance(target, type) else OPERATORS)[target] = rule
        return rule

    return enter


def names(*where: Any, of: str) -> list[Any]:
    """Return the functions of these names, and their in-place forms, wherever they are defined."""
    wanted = [form for name in of.split() for form in (name, f"{name}_")]
    found = (getattr(place, name, None) for place in where for name in wanted)
    return [function for function in found if callable(function)]


class Fusing(TorchFunctionMode):
    """Within it, torch computes with `Stacked` values of N networks."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Apply the rule of an operator."""
        kwargs = dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        if _any_stacked(args) or (kwargs and _any_stacked(kwargs.values())):
            rule = OPERATORS.get(func)
            result = NotImplemented if rule is None else rule(func, *args, **kwargs)
            return mapped(func, *args, **kwargs) if result is NotImplemented else result
        if func in DRAWS:
            return DRAWS[func](self.members, func, *args, **kwargs)
        return func(*args, **kwargs)


def _any_stacked(values: Iterable[Any]) -> bool:
    return any(type(v) is Stacked or (type(v) in (tuple, list) and _any_stacked(v)) for v in values)


@contextmanager
def quiet() -> Iterator[None]:
    """Let vmap run what it can only run one by one, without a warning: the measurement decides whether it is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


def mapped(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply an operator that has no rule of its own to each of the N networks' values: exact, but slower."""
    leaves, spec = tree_flatten((args, kwargs), is_leaf=lambda leaf: type(leaf) is Stacked)
    places = [i for i, leaf in enumerate(leaves) if type(leaf) is Stacked]

    def of_one(*values: Tensor) -> Any:
        filled = list(leaves)
        for i, value in zip(places, values, strict=True):
            filled[i] = value
        positional, named = tree_unflatten(filled, spec)
        return func(*positional, **named)

    try:
        with quiet():
            result = torch.vmap(of_one, randomness="different")(*(leaves[i].apart(0) for i in places))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise NotSupportedError(f"{getattr(func, '__name__', func)} is not possible for N networks: {reason}") from None
    return tree_map(lambda y: lead(y) if isinstance(y, Tensor) else y, result)

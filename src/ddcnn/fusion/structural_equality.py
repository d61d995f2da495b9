"""Do networks differ in parameters and buffers alone? Only then can the code of one compute for all."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OWN = frozenset(vars(nn.Module()))  # what torch keeps in every layer
_DEPTH = 20
_PLAIN = (str, bytes, int, float, complex, slice, range, tuple, list, type(None))
_SIMPLE = (str, bytes, int, float, complex, slice, range, enum.Enum, Path, Set, torch.dtype, torch.device)


def structure(module: nn.Module) -> tuple[object, ...]:
    """Return what equal networks share: classes of layers, their options in words, and the form of the state."""
    layers = tuple((name, type(layer).__qualname__, layer.extra_repr()) for name, layer in module.named_modules())
    state = tuple((name, tuple(t.shape), t.dtype, t.device.type) for name, t in _tensors(module))
    return layers, state, tuple((name, p.requires_grad) for name, p in module.named_parameters())


def code(module: nn.Module) -> list[str]:
    """Return in words what its structure does not show: whose code runs, and the plain options of its layers."""
    words = []
    for layer in module.modules():
        forward = getattr(type(layer).forward, "__code__", None)
        plain = {name: repr(value) for name, value in options(layer).items() if isinstance(value, _PLAIN)}
        plain.pop("training", None)  # a proof is of both modes
        body = None if forward is None else (forward.co_code.hex(), repr(forward.co_names), _constants(forward))
        words.append(repr((type(layer).__module__, body, sorted(plain.items()))))
    return words


def _constants(code: types.CodeType) -> list[object]:
    """Return the constants of a function, those of functions within it as well; not where they are in memory."""
    return [
        (c.co_code.hex(), c.co_names, _constants(c)) if isinstance(c, types.CodeType) else repr(c)
        for c in code.co_consts
    ]


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def difference_in_code(modules: Sequence[nn.Module]) -> str:
    """Return in one line what beside parameters and buffers decides what a network computes; empty if nothing does."""
    first = dict(modules[0].named_modules())
    for module in modules:
        for name, layer in module.named_modules():
            if has_hooks(layer):
                return f"a {type(layer).__name__} of it has hooks"
            if any(_holds_layers(value) for value in options(layer).values()):
                return f"a {type(layer).__name__} of it holds a layer that it did not register"
            if layer is not first[name] and not _equal(options(layer), options(first[name]), _DEPTH):
                return f"a {type(layer).__name__} of it has other options in other networks"
    return ""


def has_hooks(layer: nn.Module) -> bool:
    """Tell whether code that is not the layer's own runs when it does."""
    return any(getattr(layer, hooks) for hooks in _HOOKS)


def options(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer that torch does not keep in every layer, and whether it is in train mode."""
    return {name: value for name, value in vars(layer).items() if name not in _OWN or name == "training"}


def _equal(a: Any, b: Any, depth: int) -> bool:
    """Compare by content; what cannot be compared is different."""
    if a is b:
        return True
    if type(a) is not type(b) or not depth:
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.device == b.device and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key], depth - 1) for key in a)
    if isinstance(a, Sequence) and not isinstance(a, str | bytes):
        return len(a) == len(b) and all(_equal(x, y, depth - 1) for x, y in zip(a, b, strict=True))
    if isinstance(a, _SIMPLE):
        return bool(a == b)
    if isinstance(a, types.FunctionType):
        cells = [[cell.cell_contents for cell in f.__closure__ or ()] for f in (a, b)]
        return a.__code__ == b.__code__ and _equal([a.__defaults__, *cells[0]], [b.__defaults__, *cells[1]], depth - 1)
    return hasattr(a, "__dict__") and _equal(vars(a), vars(b), depth - 1)


def _holds_layers(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return isinstance(value, nn.Module) or any(isinstance(part, nn.Module) for part in parts)

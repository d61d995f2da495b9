"""Rules of shapes: reshaping, axes, parts, joining, reductions; and what a network may ask about a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcnn.fusion.operators import fuses, names
from ddcnn.fusion.stacked import NotSupportedError, Stacked, fold, lead

_FACTS = "shape ndim dtype device layout is_cuda is_meta is_sparse is_quantized is_nested is_mps is_xla requires_grad"


@fuses(
    *(getattr(Tensor, name).__get__ for name in _FACTS.split()),
    *names(Tensor, of="size dim ndimension numel nelement __len__ is_contiguous stride get_device element_size"),
    *names(Tensor, torch, of="is_floating_point is_complex numel is_tensor"),
)
def asked(func: Any, value: Stacked, *args: Any, **kwargs: Any) -> Any:
    """Answer for one network."""
    return func(value, *args, **kwargs)


@fuses(
    *names(Tensor, torch, of="item tolist numpy is_nonzero equal allclose nonzero unique"),
    *names(Tensor, of="__bool__ __float__ __int__ __index__ __complex__ __contains__ __iter__ __array__ data_ptr"),
)
def read(func: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
    """Refuse: what comes next would depend on the numbers of one network."""
    raise NotSupportedError(f"it reads numbers out of a tensor ({getattr(func, '__name__', func).strip('_')})")


@fuses(*names(Tensor, torch, of="view reshape view_as reshape_as flatten unflatten squeeze unsqueeze ravel"))
def reshape(func: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Reshape all networks' values as those of one."""
    if type(value) is not Stacked or any(isinstance(a, torch.dtype) for a in args):
        return NotImplemented
    shape = tuple(func(torch.empty(value.shape, device="meta"), *map(_meta, args), **kwargs).shape)
    if value.ndim and shape and shape[0] == value.shape[0] and value.axis != 0:
        new = (shape[0], value.members, *shape[1:])
        return Stacked(value.apart(1).reshape(new), value.members, 1)
    return lead(value.apart(0).reshape(value.members, *shape))


def _meta(argument: Any) -> Any:
    return torch.empty(argument.shape, device="meta") if isinstance(argument, Tensor) else argument


@fuses(*names(Tensor, torch, of="expand expand_as broadcast_to repeat tile"))
def expand(func: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Repeat all networks' values as those of one."""
    if type(value) is not Stacked:
        return NotImplemented
    axes = func(torch.empty(value.shape, device="meta"), *map(_meta, args), **kwargs).ndim
    padded = value.apart(0)[(slice(None),) + (None,) * (axes - value.ndim)]
    if func.__name__ in ("repeat", "tile"):
        counts = [c for a in (*args, *kwargs.values()) for c in (a if isinstance(a, Sequence) else (a,))]
        return lead(padded.repeat(1, *(1,) * (axes - len(counts)), *counts))
    shape = func(torch.empty(value.shape, device="meta"), *map(_meta, args), **kwargs).shape
    return lead(padded.expand(value.members, *shape))


@fuses(*names(Tensor, torch, of="permute transpose swapaxes swapdims movedim moveaxis t"))
def permute(func: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Change the order of axes: of all networks' values as of one's."""
    if type(value) is not Stacked:
        return NotImplemented
    marks = torch.empty([2 + i for i in range(value.ndim)], device="meta")  # each axis known by its length
    order = [length - 2 for length in func(marks, *args, **kwargs).shape]
    return lead(value.apart(0).permute(0, *(1 + axis for axis in order)))


_SELECT = "chunk split tensor_split narrow select unbind index_select flip roll cumsum softmax log_softmax softmin"
_REDUCE = "mean sum amax amin prod var std logsumexp argmax argmin any all"
# Where each takes its axis, counted without the value itself, and the axis if none is given.
_AXIS = {
    "chunk": (1, 0), "split": (1, 0), "tensor_split": (1, 0), "narrow": (0, None), "select": (0, None),
    "unbind": (0, 0), "index_select": (0, None), "flip": (0, None), "cumsum": (0, None),
    "softmax": (0, None), "log_softmax": (0, None), "softmin": (0, None), "roll": (1, None),
}  # fmt: skip


@fuses(*names(Tensor, torch, F, of=_SELECT + " " + _REDUCE))
def along(func: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Act along axes: those of one network's value, found in all networks' values."""
    if type(value) is not Stacked or any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
        return NotImplemented
    name = func.__name__
    place, default = _AXIS.get(name, (0, None))
    given = dict(enumerate(args))
    if name == "flip" and args and isinstance(args[0], int):
        given, args = {0: args}, (args,)
    where: Any = next((key for key in ("dim", "dims", "axis") if key in kwargs), None)
    axes = kwargs[where] if where else given.get(place, default)
    if axes is None and name in _REDUCE.split() and name not in ("argmax", "argmin", "prod") and not args:
        axes = tuple(range(value.ndim))
    if axes is None or isinstance(axes, bool) or not value.ndim:
        return NotImplemented
    listed = [a % value.ndim for a in (axes if isinstance(axes, Sequence) else (axes,))]
    if not listed:
        return NotImplemented
    spatial = value.axis is None and min(listed) >= 2
    axis = None if spatial else min(1, *listed) if len(listed) > 1 else min(1, listed[0])
    moved = [a if spatial else a + 1 for a in listed]
    new: Any = moved if isinstance(axes, Sequence) else moved[0]
    if where:
        kwargs[where] = new
    elif place < len(args):
        args = (*args[:place], new, *args[place + 1 :])
    else:
        kwargs["dims" if name == "roll" else "dim"] = new
    result = func(value.physical if axis is None else value.apart(axis), *args, **kwargs)
    many = isinstance(result, tuple | list)
    parts = [Stacked(y, value.members, axis) for y in (result if many else [result])]
    return tuple(parts) if many else parts[0]


@fuses(Tensor.__getitem__)
def part(func: Any, value: Any, index: Any) -> Any:
    """Take a part: the same of each network's value."""
    items = index if isinstance(index, tuple) else (index,)
    if type(value) is not Stacked or not all(type(i) in (int, slice, type(None), type(Ellipsis)) for i in items):
        return NotImplemented
    if value.axis is None and len(items) > 2 and type(items[0]) is slice and items[1] == slice(None):
        return fold(func(value.physical, items), value.members)  # all channels: folded they stay
    return lead(func(value.apart(0), (slice(None), *items)))


@fuses(torch.cat, torch.concat, torch.concatenate)
def join(func: Any, values: Sequence[Any], dim: int = 0, **kwargs: Any) -> Any:
    """Join along an axis; feature maps channels last, as convolutions want them."""
    if kwargs or not all(type(value) is Stacked for value in values):
        return NotImplemented
    first = values[0]
    if dim % first.ndim == 1 and first.ndim > 2:
        last = [value.apart(1).movedim((1, 2), (-2, -1)) for value in values]  # (B, *s, N, C)
        return Stacked(func(last, -1).movedim((-2, -1), (1, 2)), first.members, 1)
    return lead(func([value.apart(0) for value in values], dim % first.ndim + 1))


@fuses(torch.stack)
def stack(func: Any, values: Sequence[Any], dim: int = 0, **kwargs: Any) -> Any:
    """Join along a new axis."""
    if kwargs or not all(type(value) is Stacked for value in values):
        return NotImplemented
    return lead(func([value.apart(0) for value in values], dim % (values[0].ndim + 1) + 1))

"""Rules of what acts element by element: activations, arithmetic, comparisons, casts, random numbers, dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcnn.fusion.operators import DRAWS, fuses, names
from ddcnn.fusion.stacked import NotSupportedError, Stacked, lead

_ONE = """
    relu relu6 sigmoid tanh gelu silu mish hardswish hardsigmoid hardtanh elu selu celu leaky_relu rrelu softplus
    softsign logsigmoid tanhshrink softshrink hardshrink threshold abs absolute neg negative exp exp2 expm1 log log1p
    log2 log10
    sqrt rsqrt square reciprocal sin cos tan sinh cosh asin acos atan erf erfc erfinv sign sgn floor ceil round trunc
    frac sinc logit lgamma digamma nan_to_num logical_not bitwise_not isnan isinf isfinite positive
    to float double half bfloat16 long int bool type cpu cuda clone detach fill zero
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like
    bernoulli uniform normal exponential cauchy dropout alpha_dropout
    __neg__ __pos__ __abs__ __invert__
"""
_SEVERAL = """
    add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod pow float_power maximum
    minimum fmax fmin atan2 hypot copysign lerp addcmul addcdiv clamp clip clamp_min clamp_max masked_fill xlogy
    heaviside
    eq ne lt le gt ge greater greater_equal less less_equal not_equal logical_and logical_or logical_xor
    bitwise_and bitwise_or bitwise_xor type_as copy
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ __itruediv__
    __div__ __rdiv__ __idiv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ __ipow__
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __xor__ __iand__ __ior__ __ixor__
"""
_DRAWN = "bernoulli uniform normal exponential cauchy rand_like randn_like randint_like dropout alpha_dropout rrelu"
_PLACES = (torch, F, Tensor, torch.special)


@fuses(*names(*_PLACES, of=_ONE), *names(*_PLACES, of=_SEVERAL))
def pointwise(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute in the layout the values have; where they differ, with N as the second axis of all of them."""
    kwargs.pop("memory_format", None)
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    stacked = [t for t in tensors if type(t) is Stacked]
    first = stacked[0]
    if len(tensors) == len(stacked) and all(_alike(first, other) for other in stacked[1:]):
        axis, change = first.axis, _physical
    elif first.axis is None and first is args[0] and all(_of_a_kind(first, other) for other in tensors):
        axis, change = None, _folded  # in place on a view of the first would make its gradient a copy of a copy
    else:
        axes = max(t.ndim for t in tensors)
        if any(t.ndim == 0 and t.dtype != first.dtype for t in stacked):
            return NotImplemented  # a number does not change the type of a tensor, but an axis of N numbers would
        axis, change = min(axes, 1), _aligner(axes)
    inputs = [change(a) for a in args]
    result = func(*inputs, **{name: change(a) for name, a in kwargs.items()})
    if result is inputs[0]:
        return args[0]  # changed in place
    return Stacked(result, first.members, axis)


def _alike(a: Stacked, b: Stacked) -> bool:
    """Tell whether two values broadcast as they are: in one layout, folded only with equally many channels."""
    return a.axis == b.axis and a.ndim == b.ndim and (a.axis is not None or a.shape[1] == b.shape[1])


def _of_a_kind(a: Stacked, b: Tensor) -> bool:
    """Tell whether two values of (B, C, *s) broadcast channel by channel when both are folded."""
    return type(b) is Stacked and a.ndim == b.ndim and a.shape[1] == b.shape[1]


def _folded(value: Any) -> Any:
    return value.folded() if type(value) is Stacked else value


def _physical(value: Any) -> Any:
    return value.physical if type(value) is Stacked else value


def _aligner(axes: int) -> Any:
    def align(value: Any) -> Any:
        """Return (1.., N or 1, 1.., *shape) with N at axis 1 of ``axes`` + 1 axes."""
        if not isinstance(value, Tensor):
            return value
        missing = axes - value.ndim
        if type(value) is not Stacked:
            if value.ndim == 0:
                return value
            return value[(None, None) + (None,) * (missing - 1)] if missing else value.unsqueeze(1)
        if not missing:
            return value.apart(min(axes, 1))
        return value.apart(0)[(None, slice(None)) + (None,) * (missing - 1)]

    return align


@fuses(torch.where, Tensor.where)
def where(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Choose element by element."""
    return pointwise(func, *args, **kwargs) if len(args) + len(kwargs) > 2 else NotImplemented


@fuses(Tensor.contiguous)
def contiguous(func: Any, value: Stacked, **kwargs: Any) -> Stacked:  # noqa: ARG001
    """Leave the memory as it is: how one network lays out its memory says nothing about N."""
    return value


@fuses(*names(Tensor, of="new_empty new_zeros new_ones new_full"))
def new(func: Any, like: Stacked, *size: Any, **kwargs: Any) -> Stacked:
    """Make a tensor for each network: what is then drawn into it must differ."""
    (shape, *rest) = size if size and not isinstance(size[0], int) else (size,)
    if "size" in kwargs:
        shape, rest = kwargs.pop("size"), list(size)
    return lead(func(like.physical, (like.members, *shape), *rest, **kwargs))


def _draw_sized(members: int, func: Any, *size: Any, **kwargs: Any) -> Stacked:
    shape: Any = kwargs.pop("size", size)
    if len(shape) == 1 and not isinstance(shape[0], int):
        (shape,) = shape
    return lead(func((members, *shape), **kwargs))


def _draw_like(members: int, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Draw for a tensor that all networks have in common."""
    first, *rest = args
    if not isinstance(first, Tensor):
        raise NotSupportedError(f"{func.__name__} draws random numbers in a way that has no rule")
    if func.__name__.endswith("_"):
        raise NotSupportedError(f"{func.__name__} draws random numbers into a tensor that is not made from the input")
    return pointwise(func, lead(first.expand(members, *first.shape)), *rest, **kwargs)


# What is empty is going to be filled, perhaps with random numbers.
DRAWS.update(dict.fromkeys((torch.rand, torch.randn, torch.empty), _draw_sized))
DRAWS.update(dict.fromkeys(names(*_PLACES, of=_DRAWN), _draw_like))
DRAWS.update(dict.fromkeys((torch.randint, torch.randperm, torch.multinomial, torch.poisson), _draw_like))

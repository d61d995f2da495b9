"""Convolutions of few channels, several networks in one: a group of them fills the vectors of a processor.

A processor computes with 8 or 16 channels at once. Of N networks with 2 channels each, a grouped convolution leaves
most of that idle; 4 networks as one convolution of 8 channels, whose weight is block-diagonal, do more operations in
less time. Zeros times the numbers of another network add nothing, unless these are infinite or no numbers. So a result
that is not finite is computed again, network by network: one that diverges never touches another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SCHEMA = """(
    Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, int merge
) -> Tensor"""
_convolve = torch.ops.aten.convolution.default
_gradients = torch.ops.aten.convolution_backward.default


def convolve_merged(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, members: int
) -> Tensor | None:
    """Convolve for N networks, (B, N*C, *s) -> (B, N*K, *s'), several in a group; None where that does not pay."""
    transformed = torch._C._functorch.is_functorch_wrapped_tensor(x)  # by torch.func, which knows no numbers
    if x.device.type != "cpu" or isinstance(padding, str) or transformed:
        return None
    dtype = x.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    merge = merged_members(members, max(weight.shape[1], len(weight) // members), dtype)
    if merge == 1:
        return None
    axes = x.ndim - 2
    options = ([value] * axes if isinstance(value, int) else list(value) for value in (stride, padding, dilation))
    values = (None if value is None else value.to(dtype) for value in (x, weight, bias))
    y: Tensor = merged_convolution(*values, *options, members, merge)
    return y


def merged_members(members: int, channels: int, dtype: torch.dtype) -> int:
    """Return how many of N networks with so many channels (the larger of in and out) share a group; it divides N.

    By measurement (``benchmarks/convolutions.py``) up to 8 channels a group in float32, where there are less than 3;
    else up to 16, where there are less than 8.

    >>> merged_members(64, 2, torch.float32), merged_members(64, 2, torch.bfloat16), merged_members(9, 2, torch.float32)
    (4, 8, 3)
    """
    width, few = (8, 3) if dtype == torch.float32 else (16, 8)
    most = width // channels if channels < few else 1
    return max(m for m in range(1, most + 1) if members % m == 0)


@torch.library.custom_op("ddcnn::merged_convolution", mutates_args=(), schema=_SCHEMA)
def merged_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    merge: int,
) -> Tensor:
    """(B, G*C, *s), (G*K, C, *k), (G*K,) or None -> (B, G*K, *s'): G groups, of which ``merge`` each become one."""
    form = bias, stride, padding, dilation, False, [0] * (x.ndim - 2)
    y: Tensor = _convolve(x, _blocks(weight, groups, merge), *form, groups // merge)
    return y if _finite(y) else _convolve(x, weight, *form, groups)


@merged_convolution.register_fake
def _shape_of(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int, *_: Any
) -> Tensor:
    y: Tensor = _convolve(x, weight, bias, stride, padding, dilation, False, [0] * (x.ndim - 2), groups)
    return y


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, weight, bias, *options, groups, merge = inputs
    ctx.save_for_backward(x, weight)
    ctx.form = None if bias is None else bias.shape, *options, False, [0] * (x.ndim - 2)
    ctx.groups, ctx.merge = groups, merge


def _backward(ctx: Any, slope: Tensor) -> Any:
    """Return the gradients; that of the weight tells whether there is anything infinite in the one that came."""
    x, weight = ctx.saved_tensors
    for_input, for_weight, for_bias = ctx.needs_input_grad[:3]
    merged, groups = _blocks(weight, ctx.groups, ctx.merge), ctx.groups // ctx.merge
    _, of_blocks, of_bias = _gradients(slope, x, merged, *ctx.form, groups, [False, True, for_bias])
    of_input = None
    if for_input:
        if not _finite(of_blocks):
            merged, groups = weight, ctx.groups
        of_input, _, _ = _gradients(slope, x, merged, *ctx.form, groups, [True, False, False])
    of_weight = _diagonal(of_blocks, ctx.groups, ctx.merge).reshape(weight.shape) if for_weight else None
    return of_input, of_weight, of_bias, None, None, None, None, None


merged_convolution.register_autograd(_backward, setup_context=_remember)


def _blocks(weight: Tensor, groups: int, merge: int) -> Tensor:
    """(G*K, C, *k) -> (G*K, merge*C, *k): each network's weight in its own block, zeros elsewhere."""
    rows, C, *kernel = weight.shape
    K = rows // groups
    blocks = weight.new_zeros(rows, merge * C, *kernel)
    _diagonal(blocks, groups, merge).copy_(weight.view(groups // merge, merge, K, C, *kernel))
    return blocks


def _diagonal(blocks: Tensor, groups: int, merge: int) -> Tensor:
    """(G*K, merge*C, *k) -> (G/merge, merge, K, C, *k): a view of the blocks on the diagonal."""
    rows, columns, *kernel = blocks.shape
    apart = blocks.view(groups // merge, merge, rows // groups, merge, columns // merge, *kernel)
    return apart.diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _finite(values: Tensor) -> bool:
    """Tell whether all numbers are finite; false as well if their sum is not."""
    return math.isfinite(values.sum().item())

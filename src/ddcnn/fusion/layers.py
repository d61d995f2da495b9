"""Rules of layers: convolutions, norms, linear layers, and what acts on windows of each channel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion.merged import convolve_merged
from ddcnn.fusion.operators import fuses, names
from ddcnn.fusion.stacked import Stacked, fold, lead

_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _flat(value: Any) -> Any:
    """(N, C, ...) -> (N*C, ...), a view; None stays None."""
    return None if value is None else value.apart(0).flatten(0, 1)


def _stacked(*values: Any) -> bool:
    """Tell whether all of them are there for each network, or absent."""
    return all(value is None or type(value) is Stacked for value in values)


@fuses(torch.conv1d, torch.conv2d, torch.conv3d)
def convolution(
    func: Any, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    """N convolutions C_in -> C_out: one convolution N*C_in -> N*C_out in N times as many groups."""
    if not _stacked(x, weight, bias) or x.ndim != weight.ndim:
        return NotImplemented
    if groups == 1 and (tap := _only_tap(x.shape[2:], weight.shape[2:], stride, padding, dilation)) is not None:
        seen = linear(func, _pixel(x, 0), _pixel(weight, tap), bias)
        return Stacked(seen.physical[(..., *(None,) * (x.ndim - 2))], x.members, 0)
    values = x.folded()
    if stride_without_kernel(weight.shape[2:], stride, padding):
        values, stride = _POOL[x.ndim - 2](values, 1, stride), 1
    form = _flat(weight), _flat(bias), stride, padding, dilation
    y = convolve_merged(values, *form, x.members) if groups == 1 else None
    return fold(func(values, *form, groups * x.members) if y is None else y, x.members)


def _only_tap(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> int | None:
    """Return which tap of a kernel, the same along each axis, sees the one pixel that there is, for the one result."""
    given = (stride, padding, dilation, kernel)
    options: list[set[Any]] = [{value} if isinstance(value, int | str) else set(value) for value in given]
    if any(n != 1 for n in size) or any(len(values) > 1 for values in options) or isinstance(padding, str):
        return None
    s, p, d, k = (int(*values) for values in options)
    results = (2 * p - d * (k - 1)) // s + 1
    return p // d if results == 1 and p % d == 0 and p // d < k else None


def _pixel(value: Stacked, place: int) -> Stacked:
    """(B, C, *s) -> (B, C): one place of the axes of space."""
    index: tuple[Any, ...] = (..., *(place,) * (value.ndim - 2))
    return lead(value.apart(0)[index])


def stride_without_kernel(kernel: Any, stride: Any, padding: Any) -> bool:
    """Tell whether a convolution looks at every second pixel alone, or every third.

    Taking these pixels first is the same: as maxima of one pixel, for the gradient of an index would lie in memory
    unlike all others. oneDNN 3.x writes past its memory in the backward pass of such convolutions of less than 16
    channels that lie last (uxlfoundation/oneDNN issue 6035).
    """
    steps = [stride] if isinstance(stride, int) else stride
    edges = [padding] if isinstance(padding, int | str) else padding
    return all(k == 1 for k in kernel) and any(s > 1 for s in steps) and not any(edges)


@fuses(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
def transposed(
    func: Any, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """N transposed convolutions: one in N times as many groups."""
    if not _stacked(x, weight, bias) or x.ndim != weight.ndim:
        return NotImplemented
    y = func(x.folded(), _flat(weight), _flat(bias), stride, padding, output_padding, groups * x.members, dilation)
    return fold(y, x.members)


@fuses(F.linear)
def linear(func: Any, x: Any, weight: Any, bias: Any = None) -> Any:  # noqa: ARG001
    """N linear layers: one batched matrix product."""
    if not _stacked(x, weight, bias) or x.ndim < 2 or weight.ndim != 2:
        return NotImplemented
    rows = x.apart(0).flatten(1, -2)  # (N, rows, I)
    transposed_weight = weight.apart(0).transpose(1, 2)  # (N, I, O)
    if bias is None:
        y = torch.bmm(rows, transposed_weight)
    else:
        y = torch.baddbmm(bias.apart(0).unsqueeze(1), rows, transposed_weight)
    return lead(y.unflatten(1, x.shape[:-1]))


@fuses(F.batch_norm)
def batch_norm(
    func: Any, x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """N batch norms of C channels: one of N*C channels."""
    if not _stacked(x, running_mean, running_var, weight, bias):
        return NotImplemented
    y = func(x.folded(), _flat(running_mean), _flat(running_var), _flat(weight), _flat(bias), training, momentum, eps)
    return fold(y, x.members)


@fuses(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm_layer(layer: Any, x: Any) -> Any:
    """Let a batch norm with a cumulative average (momentum None) count in tensors: each network has its own count."""
    if layer.momentum is not None or not layer.training or layer.running_mean is None:
        return type(layer).forward(layer, x)
    layer.num_batches_tracked.physical.add_(1)
    mean, var = layer.running_mean.physical, layer.running_var.physical
    new_mean, new_var = torch.zeros_like(mean), torch.ones_like(var)
    weight, bias = _flat(layer.weight), _flat(layer.bias)
    y = F.batch_norm(x.folded(), new_mean.flatten(), new_var.flatten(), weight, bias, True, 1.0, layer.eps)
    seen = layer.num_batches_tracked.physical.unsqueeze(1)
    for running, batch in ((mean, new_mean), (var, new_var)):
        running.add_((batch - running) / seen)
    return fold(y, x.members)


@fuses(F.instance_norm)
def instance_norm(
    func: Any, x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """N instance norms of C channels: one of N*C channels."""
    if not _stacked(x, running_mean, running_var, weight, bias):
        return NotImplemented
    y = func(
        x.folded(), _flat(running_mean), _flat(running_var), _flat(weight), _flat(bias), use_input_stats, momentum, eps
    )
    return fold(y, x.members)


@fuses(F.group_norm)
def group_norm(func: Any, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """N group norms: one with N times as many groups."""
    if not _stacked(x, weight, bias):
        return NotImplemented
    return fold(func(x.folded(), num_groups * x.members, _flat(weight), _flat(bias), eps), x.members)


@fuses(F.layer_norm)
def layer_norm(
    func: Any, x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """N layer norms: one without scale and shift, then those of each network."""
    if not _stacked(x, weight, bias):
        return NotImplemented
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    axis = x.ndim - len(shape)  # N right before the axes that are normalised: channels last stay as they lie
    y = func(x.apart(axis), shape, None, None, eps)
    if weight is not None:
        y = y * weight.apart(0)
    if bias is not None:
        y = y + bias.apart(0)
    return Stacked(y, x.members, axis)


@fuses(torch.prelu, F.prelu)
def prelu(func: Any, x: Any, weight: Any) -> Any:
    """N PReLUs: one with a slope per channel."""
    if not _stacked(x, weight) or x.ndim < 2:
        return NotImplemented
    slopes = weight.apart(0).expand(-1, x.shape[1])
    return fold(func(x.folded(), slopes.reshape(-1)), x.members)


_POOLS = """
    max_pool{0}d max_pool{0}d_with_indices avg_pool{0}d adaptive_avg_pool{0}d adaptive_max_pool{0}d
    adaptive_max_pool{0}d_with_indices lp_pool{0}d dropout{0}d
"""


def _windows(axes: int | None) -> Any:
    def rule(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        others = (*args, *kwargs.values())
        batched = x.ndim == axes + 2 if axes else x.ndim > 2
        if type(x) is not Stacked or not batched or any(isinstance(a, Tensor) for a in others):
            return NotImplemented
        result = func(x.folded(), *args, **kwargs)
        if result is x.physical:
            return x  # nothing done, or done in place
        return tuple(fold(y, x.members) for y in result) if isinstance(result, tuple) else fold(result, x.members)

    return rule


for _axes in (1, 2, 3):
    fuses(*names(F, torch, of=_POOLS.format(_axes)))(_windows(_axes))
fuses(*names(F, torch, of="interpolate upsample pixel_shuffle pixel_unshuffle feature_dropout"))(_windows(None))


@fuses(F.pad, torch._C._nn.pad)
def pad(func: Any, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """Pad the last axes, which are those of one network."""
    if type(x) is not Stacked:
        return NotImplemented
    if len(pad) // 2 <= x.ndim - 2:
        return fold(func(x.folded(), pad, mode, value), x.members)
    return lead(func(x.apart(0), pad, mode, value)) if mode == "constant" else NotImplemented

"""The operator table: what each layer of a local CNN becomes when N of them are one network.

Inside a fused network an activation is (B, N*C, *s), subdomain by subdomain, so that whatever acts per element, per
channel or per window needs no change. Parameters keep the stacked layout (N, ...): entry n is the parameter of
subdomain n. This module is the only place where N is folded into the channels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Builder = Callable[[Sequence[nn.Module]], nn.Module]

LAYERS: dict[type[nn.Module], Builder] = {}
UNCHANGED_LAYERS: set[type[nn.Module]] = {
    nn.ReLU,
    nn.Identity,
    nn.Dropout,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
}
UNCHANGED_FUNCTIONS: set[Any] = {F.relu, torch.relu, operator.add, operator.iadd, operator.mul, torch.add, torch.mul}
UNCHANGED_METHODS: set[str] = {"relu", "relu_", "add", "add_", "mul", "mul_", "contiguous"}


def fuses(*types: type[nn.Module]) -> Callable[[Builder], Builder]:
    """Enter a builder, ``(N equal layers) -> one layer``, in the table."""

    def enter(builder: Builder) -> Builder:
        LAYERS.update(dict.fromkeys(types, builder))
        return builder

    return enter


def stacked(layers: Sequence[nn.Module], name: str) -> nn.Parameter | None:
    """Return the parameters of that name as one, (N, ...), or None where the layer has none."""
    if getattr(layers[0], name) is None:
        return None
    values = [getattr(layer, name) for layer in layers]
    return nn.Parameter(torch.stack([v.detach() for v in values]), requires_grad=values[0].requires_grad)


@fuses(nn.Conv2d, nn.Conv3d)
class FusedConv(nn.Module):
    """N convolutions C_in -> C_out: one convolution N*C_in -> N*C_out in N times as many groups."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        first = cast(nn.Conv2d | nn.Conv3d, layers[0])
        self.weight = stacked(layers, "weight")
        self.bias = stacked(layers, "bias")
        self.stride, self.dilation, self.groups = first.stride, first.dilation, first.groups * len(layers)
        # Other padding modes pad first, per channel, then convolve without padding, as the layer itself does.
        self.mode = first.padding_mode
        self.outer = first._reversed_padding_repeated_twice
        self.padding = first.padding if self.mode == "zeros" else 0
        self.convolve: Callable[..., Tensor] = F.conv2d if isinstance(first, nn.Conv2d) else F.conv3d

    def forward(self, x: Tensor) -> Tensor:
        """(B, N*C_in, *s) -> (B, N*C_out, *s')."""
        if self.mode != "zeros":
            x = F.pad(x, self.outer, mode=self.mode)
        assert self.weight is not None
        bias = None if self.bias is None else self.bias.flatten()
        return self.convolve(x, self.weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation, self.groups)


@fuses(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
class FusedBatchNorm(nn.Module):
    """N batch norms of C channels: one of N*C channels."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        first = cast(nn.BatchNorm2d | nn.BatchNorm3d, layers[0])
        self.weight = stacked(layers, "weight")
        self.bias = stacked(layers, "bias")
        self.momentum, self.eps = first.momentum, first.eps
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            absent = getattr(first, name) is None
            self.register_buffer(name, None if absent else torch.stack([getattr(layer, name) for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N*C, *s) -> (B, N*C, *s)."""
        mean, var, weight, bias = (
            None if t is None else t.view(-1) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        if not self.training or mean is None or self.num_batches_tracked is None:
            return F.batch_norm(x, mean, var, weight, bias, self.training or mean is None, 0.0, self.eps)
        self.num_batches_tracked += 1
        if self.momentum is not None:
            return F.batch_norm(x, mean, var, weight, bias, True, self.momentum, self.eps)
        # A cumulative average: each network counts its own batches.
        seen = self.num_batches_tracked.view(-1, 1)
        new_mean, new_var = torch.zeros_like(mean), torch.ones_like(mean)
        y = F.batch_norm(x, new_mean, new_var, weight, bias, True, 1.0, self.eps)
        for running, batch in ((self.running_mean, new_mean), (self.running_var, new_var)):
            assert running is not None
            running.add_((batch.view_as(running) - running) / seen)
        return y


@fuses(nn.Linear)
class FusedLinear(nn.Module):
    """N linear layers: one batched matrix product."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight = stacked(layers, "weight")
        self.bias = stacked(layers, "bias")

    def forward(self, x: Tensor) -> Tensor:
        """(B, N*I) -> (B, N*O)."""
        assert self.weight is not None
        inputs = x.unflatten(1, (len(self.weight), -1)).transpose(0, 1)  # (N, B, I)
        weight = self.weight.transpose(1, 2)  # (N, I, O)
        y = torch.bmm(inputs, weight) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), inputs, weight)
        return y.transpose(0, 1).flatten(1)


@fuses(nn.Flatten)
def _fuse_flatten(layers: Sequence[nn.Module]) -> nn.Module:
    first = cast(nn.Flatten, layers[0])
    if not flattens_all(first.start_dim, first.end_dim):
        raise NotImplementedError(f"flatten from axis {first.start_dim} to {first.end_dim}")
    return nn.Flatten()


def flattens_all(start_dim: int = 0, end_dim: int = -1) -> bool:
    """Tell whether a flatten keeps the batch axis and joins all others: then (B, N*C, *s) -> (B, N*F) is exact."""
    return start_dim == 1 and end_dim == -1

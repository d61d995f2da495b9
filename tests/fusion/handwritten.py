"""Small networks, (B, 2, *s) -> (B, 3), each with one idea that public networks use and that fusing must not mix up."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Net(nn.Module):
    """A stem, `body` (4 channels in, `out` channels out), global average pooling, and a linear head."""

    def __init__(self, axes: int = 2, out: int = 4) -> None:
        super().__init__()
        self.stem = CONV[axes](2, 4, 3, padding=1)
        self.head = nn.Sequential(AVERAGE[axes](1), nn.Flatten(), nn.Linear(out, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class SqueezeExcitation(Net):
    """A gate per channel from linear layers, seen as (B, C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(4, 2), nn.Linear(2, 4)

    def body(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gate.view(b, c, 1, 1)


class DenseBlock(Net):
    """Each layer sees all that came before, concatenated."""

    def __init__(self) -> None:
        super().__init__(out=8)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4 + 2 * i), nn.ReLU(inplace=True), nn.Conv2d(4 + 2 * i, 2, 3, padding=1))
            for i in range(2)
        )

    def body(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, dim=1)


class InvertedResidual(Net):
    """Expand, depthwise convolution, project, add."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.Hardswish(),
            nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4),
        )  # fmt: skip

    def body(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class StochasticDepth(nn.Module):
    """Drop a residual branch, for each sample on its own, as torchvision does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        shape = [x.shape[0]] + [1] * (x.ndim - 1)
        noise = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * noise.div_(1 - self.p)


class ConvNeXt(Net):
    """Depthwise convolution, layer norm and linear layers over the last axis, layer scale, stochastic depth."""

    def __init__(self, axes: int = 2, p: float = 0.0) -> None:
        super().__init__(axes)
        self.depthwise = CONV[axes](4, 4, 5, padding=2, groups=4)
        self.norm = nn.LayerNorm(4, eps=1e-6)
        self.expand, self.act, self.project = nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4)
        self.gamma = nn.Parameter(torch.full((4,), 1e-2))
        self.drop = StochasticDepth(p)
        self.to_last, self.to_first = (0, *range(2, axes + 2), 1), (0, axes + 1, *range(1, axes + 1))

    def body(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(self.to_last))
        y = self.gamma * self.project(self.act(self.expand(y)))
        return x + self.drop(y.permute(*self.to_first))


class Shuffle(Net):
    """Split the channels, work on a half, join, and shuffle them between groups."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Conv2d(2, 2, 3, padding=1)
        self.mixed = nn.Conv2d(4, 8, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.right(right)), 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        a, b, c = torch.split(self.mixed(x.view(batch, channels, height, width)), [4, 2, 2], dim=1)
        return a * torch.cat([torch.sigmoid(b), torch.tanh(c)], dim=1)


class Transposed(Net):
    """Down and up again, with transposed convolutions of all options, and a skip connection."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__(axes, out=7)
        up = TRANSPOSED[axes]
        self.down = CONV[axes](4, 6, 3, stride=2, padding=1)
        self.up = up(6, 3, 3, stride=2, padding=1, output_padding=1, groups=3, bias=False)
        self.same = up(3, 3, 3, padding=2, dilation=2)

    def body(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.elu(self.same(self.up(F.leaky_relu(self.down(x), 0.1))))], 1)


class Norms(nn.Sequential):
    """All norms but batch norm, and activations with parameters."""

    def __init__(self, axes: int) -> None:
        super().__init__(
            CONV[axes](2, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.PReLU(6),
            CONV[axes](6, 4, 3), INSTANCE_NORM[axes](4, affine=True), nn.PReLU(),
            CONV[axes](4, 4, 2), INSTANCE_NORM[axes](4, affine=True, track_running_stats=True), nn.SELU(),
            CONV[axes](4, 4, 1), nn.GroupNorm(1, 4, affine=False), nn.Softplus(),
            AVERAGE[axes](2), nn.LayerNorm((4, *[2] * axes)), nn.Flatten(), nn.LayerNorm(4 * 2**axes),
            nn.Linear(4 * 2**axes, 3),
        )  # fmt: skip


class Paddings(nn.Sequential):
    """Dilations, groups, every padding mode, and padding layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.SiLU(),
            nn.Conv2d(4, 4, (3, 2), dilation=(2, 1), padding="same", padding_mode="circular"), nn.Mish(),
            nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2, padding_mode="replicate"), nn.Tanh(),
            nn.ZeroPad2d((1, 0, 2, 1)), nn.ReflectionPad2d(1), nn.ConstantPad2d((0, 1, 1, 0), 0.5),
            nn.Conv2d(6, 4, 3, stride=2, dilation=(1, 2)), nn.LeakyReLU(0.2),
            nn.AdaptiveMaxPool2d((2, 1)), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


class OneAxis(nn.Sequential):
    """Signals: everything in one dimension."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 4, 5, padding=2, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2), nn.InstanceNorm1d(6, affine=True), nn.Hardtanh(),
            nn.AvgPool1d(2, padding=1), nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1), nn.BatchNorm1d(4), nn.ELU(),
            nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Sigmoid(), nn.Linear(5, 3),
        )  # fmt: skip


class AttentionPooling(Net):
    """A weighted mean over the positions, whose weights sum to one."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Conv2d(4, 1, 1)
        self.head = nn.Linear(4, 3)

    def body(self, x: Tensor) -> Tensor:
        weights = self.attention(x).flatten(2).softmax(dim=-1)
        return (x.flatten(2) * weights).sum(-1)


class QueryPooling(Net):
    """Learned queries that look at the positions through matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, 4))
        self.head = nn.Linear(8, 3)

    def body(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, P, C)
        weights = torch.softmax(self.queries @ tokens.transpose(1, 2) / math.sqrt(4), dim=-1)  # (B, Q, P)
        return torch.matmul(weights, tokens).reshape(x.shape[0], -1)


class SpatialPyramid(nn.Module):
    """Means and maxima over cells of several sizes, concatenated as vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2)])
        self.head = nn.Linear(4 + 16 + 4 + 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        features = [pool(x).flatten(1) for pool in self.pools]
        return self.head(torch.cat([*features, x.amax(dim=(-2, -1)), x.mean(-1).mean(-1)], dim=-1))


class BareParameters(Net):
    """Parameters and buffers that belong to no layer: of all shapes that broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.position = nn.Parameter(torch.zeros(5, 6))
        self.temperature = nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.linspace(-1, 1, 4).view(4, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        x = (x - self.mean) * self.scale + self.offset
        return torch.tanh(x + self.position) / (1 + self.temperature.exp())


class Functional(nn.Module):
    """Functions and methods in the place of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 2 * 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 0, 2))
        x = F.max_pool2d(F.silu(self.conv1(x)), 2, stride=1, padding=1)
        x = F.avg_pool2d(F.gelu(self.norm(self.conv2(x)), approximate="tanh"), kernel_size=2, stride=1)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = x.clamp(min=-3).sub(0.1).neg().abs().pow(2).add(1e-3).sqrt()
        x = F.dropout(F.instance_norm(x), p=0.0, training=self.training)
        x = F.adaptive_avg_pool2d(F.hardswish(x), (2, 2))
        return self.head(x.view(x.size(0), -1)).log_softmax(1)


class FunctionalWeights(nn.Module):
    """Weights of the network's own, given to functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.bias = nn.Parameter(torch.randn(4))
        self.matrix = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, self.bias, stride=1, padding=1).relu()
        return F.linear(F.layer_norm(x.mean((2, 3)), (4,)), self.matrix)

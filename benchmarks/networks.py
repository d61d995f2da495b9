"""Networks that the benchmarks need beside ours: a DenseNet and a ConvNeXt-like one, small, for images and volumes.

They follow the interface of `ddcnn.models` (``--model networks:DenseNet`` works in this folder), scale all channels by
``width``, and take images of any size of at least 4 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddcnn.models.layers import AVERAGE_POOL, BATCH_NORM, CONV, check_axes, he_init, scaled

POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution; again with 3x3; concatenated to the input."""

    def __init__(self, axes: int, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BATCH_NORM[axes](in_channels), BATCH_NORM[axes](4 * growth)
        self.conv1 = CONV[axes](in_channels, 4 * growth, 1, bias=False)
        self.conv2 = CONV[axes](4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al. 2017) with three blocks of four layers, growth 8."""

    def __init__(self, in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float = 1.0) -> None:
        super().__init__()
        axes = check_axes(image_size)
        growth, channels = scaled(8, width), scaled(16, width)
        layers: list[nn.Module] = [CONV[axes](in_channels, channels, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range(4):
                layers.append(DenseLayer(axes, channels, growth))
                channels += growth
            layers += [BATCH_NORM[axes](channels), nn.ReLU()]
            if block < 2:
                layers += [CONV[axes](channels, channels // 2, 1, bias=False), POOL[axes](2)]
                channels //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(AVERAGE_POOL[axes](1), nn.Flatten(), nn.Linear(channels, classes))
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, two linear layers, layer scale; channels last from the norm on."""

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()
        kernel = 7 if axes == 2 else 3
        self.depthwise = CONV[axes](channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand, self.act, self.project = (
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.last, self.first = (0, *range(2, axes + 2), 1), (0, axes + 1, *range(1, axes + 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(self.last))
        y = self.scale * self.project(self.act(self.expand(y)))
        return x + y.permute(self.first)


class ConvNeXt(nn.Module):
    """ConvNeXt (Liu et al. 2022) with stages of two blocks of 32, 64 and 128 channels.

    The stem and the steps between the stages are 3x3 convolutions of stride 2, which small subimages survive; in
    volumes the depthwise convolutions are 3x3x3.
    """

    def __init__(self, in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float = 1.0) -> None:
        super().__init__()
        axes = check_axes(image_size)
        layers: list[nn.Module] = []
        for stage in (32, 64, 128):
            channels = scaled(stage, width)
            layers.append(CONV[axes](in_channels, channels, 3, stride=2, padding=1))
            layers += [ConvNeXtBlock(axes, channels) for _ in range(2)]
            in_channels = channels
        self.features, self.pool = nn.Sequential(*layers), AVERAGE_POOL[axes](1)
        self.norm, self.classifier = nn.LayerNorm(in_channels, eps=1e-6), nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.pool(self.features(x)).flatten(1)))

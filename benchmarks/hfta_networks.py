"""VGG9 and ResNet20 written with HFTA's operators, as its users do: B networks as one, (batch, B, C, H, W)."""

from __future__ import annotations

import importlib
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.models.layers import scaled


def _ops() -> Any:
    return importlib.import_module("hfta.ops")


class VGG9(nn.Module):
    """Two convolutions per block, three blocks, three dense layers, batch norm after each but the last."""

    def __init__(self, B: int, classes: int, size: tuple[int, ...], width: float) -> None:
        super().__init__()
        ops = _ops()
        layers: list[nn.Module] = []
        channels = 3
        for block in (32, 64, 128):
            for _ in range(2):
                out = scaled(block, width)
                layers += [ops.Conv2d(channels, out, 3, padding=1, bias=False, B=B), ops.BatchNorm2d(out, B=B)]
                layers.append(nn.ReLU(inplace=True))
                channels = out
            layers.append(ops.MaxPool2d(2, B=B))
        self.features = nn.Sequential(*layers)
        hidden, features = scaled(128, width), channels * (size[0] // 8) * (size[1] // 8)
        dense: list[nn.Module] = []
        for _ in range(2):
            dense += [ops.Linear(features, hidden, bias=False, B=B), ops.BatchNorm1d(hidden, B=B)]
            dense.append(nn.ReLU(inplace=True))
            features = hidden
        self.classifier = nn.Sequential(*dense, ops.Linear(hidden, classes, B=B))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, B, C, H, W) -> (B, batch, K)."""
        scores: Tensor = self.classifier(self.features(x).flatten(2).transpose(0, 1).contiguous())
        return scores


class ResidualBlock(nn.Module):
    """Two convolutions, and a shortcut."""

    def __init__(self, B: int, channels: int, out: int, stride: int) -> None:
        super().__init__()
        ops = _ops()
        self.conv1 = ops.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False, B=B)
        self.norm1 = ops.BatchNorm2d(out, B=B)
        self.conv2 = ops.Conv2d(out, out, 3, padding=1, bias=False, B=B)
        self.norm2 = ops.BatchNorm2d(out, B=B)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(ops.Conv2d(channels, out, 1, bias=False, B=B), ops.BatchNorm2d(out, B=B))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(batch, B, C, H, W) -> the same, of the block's channels."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        seen = x if self.stride == 1 else x[..., :: self.stride, :: self.stride].contiguous()
        return F.relu(y + self.shortcut(seen), inplace=True)


class ResNet20(nn.Module):
    """Three stages of three residual blocks."""

    def __init__(self, B: int, classes: int, size: tuple[int, ...], width: float) -> None:
        super().__init__()
        ops = _ops()
        stages = [scaled(channels, width) for channels in (16, 32, 64)]
        self.conv, self.norm = ops.Conv2d(3, stages[0], 3, padding=1, bias=False, B=B), ops.BatchNorm2d(stages[0], B=B)
        blocks, channels = [], stages[0]
        for stage, out in enumerate(stages):
            for block in range(3):
                blocks.append(ResidualBlock(B, channels, out, 2 if stage and not block else 1))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.classifier = ops.Linear(channels, classes, B=B)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, B, C, H, W) -> (B, batch, K)."""
        y = self.blocks(F.relu(self.norm(self.conv(x)), inplace=True))
        scores: Tensor = self.classifier(y.mean((3, 4)).transpose(0, 1).contiguous())
        return scores


NETWORKS = {"vgg9": VGG9, "resnet20": ResNet20}

"""A network that is trained in no time, for tests of what is around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

BASE: dict[str, Any] = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 2, "batch_size": 20, "lr": 0.05, "shift": 1},
    "aggregation": {"epochs": 2},
    "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
}
"""Sections of a configuration that trains it."""


def tiny(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return a convolution with batch norm, and a linear layer."""
    hidden = max(1, round(8 * width))
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if len(image_size) == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(
        convolution(in_channels, hidden, 3, padding=1),
        norm(hidden),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(hidden * math.prod(image_size), classes),
    )


def with_dense_norm(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return a linear layer whose outputs are normalised over the batch, and another one."""
    pixels = in_channels * math.prod(image_size)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


def linear(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return batch norm and a linear layer: what learns from vectors, too."""
    pixels = in_channels * math.prod(image_size)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(pixels), nn.Linear(pixels, classes))

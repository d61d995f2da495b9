"""The same layers for images and volumes: pick a class by the number of spatial axes."""

from __future__ import annotations

from torch import nn

from ddcnn.errors import ModelError

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL: dict[int, type[nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d]] = {
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}


def check_axes(image_size: tuple[int, ...]) -> int:
    """Return the number of spatial axes, 2 or 3."""
    if len(image_size) not in CONV:
        raise ModelError(f"expected an image size (H, W) or (D, H, W), got {image_size}")
    return len(image_size)


def scaled(channels: int, factor: float) -> int:
    """Return ``channels * factor``, rounded, never below 1: the width rule.

    >>> scaled(32, 1 / 2), scaled(16, 1 / 3), scaled(2, 0.1)
    (16, 5, 1)
    """
    return max(1, round(channels * factor))


def he_init(module: nn.Module) -> None:
    """Initialise convolutions and linear layers as He et al. 2015 (normal, fan-in, ReLU), biases with zero."""
    for layer in module.modules():
        # without memory there is nothing to fill, and PyTorch would import a second's worth of compiler to say so
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

"""VGG9: six convolutions and three dense layers (after Simonyan and Zisserman 2015)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.errors import ModelError
from ddcnn.models.layers import AVERAGE_POOL, BATCH_NORM, CONV, MAX_POOL, check_axes, he_init, scaled

_POOLED = 4  # what images of 32 pixels, for which the network was made, have after three poolings


class Skip(nn.Module):
    """What does not change the number of channels, and its input added to it; then the ReLU."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, *S), as x has it."""
        return F.relu(self.layers(x) + x)


class VGG9(nn.Module):
    """Convolutions 32, 32 | 64, 64 | 128, 128, each pair max-pooled, then dense 128, 128, K.

    Feature maps of more than 4 pixels along an axis (images of 40 and more) are averaged to 4 before the dense layers,
    as later VGGs do with 7; otherwise these would have millions of inputs, and hardly train.
    With half the width this is the local CNN in the figure of arXiv 2408.14442 (16, 16 | 32, 32 | 64, 64, dense 64),
    but for a second hidden dense layer, which makes it nine weight layers. Weights: He normal.

    Parameters
    ----------
    in_channels, classes
        C and K.
    image_size
        (H, W) or (D, H, W), at least 8 pixels along each axis: three poolings by 2.
    width
        Factor on all channels and hidden units.
    batch_norm
        Batch norm after each layer but the last: without it, few epochs at a high learning rate do not suffice, and
        without it in the dense layers some seeds do not train at all.
    skip
        Whether the second convolution of each pair adds its input to its output. It has no parameters of its own, so
        that networks with and without differ in nothing else.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        image_size: tuple[int, ...],
        *,
        width: float = 1.0,
        batch_norm: bool = True,
        skip: bool = False,
    ) -> None:
        super().__init__()
        axes = check_axes(image_size)
        if min(image_size) < 8:
            raise ModelError(
                f"vgg9 pools three times and needs at least 8 pixels along each axis, got {image_size}; "
                f"use a coarser grid, or larger images"
            )
        blocks: list[nn.Module] = []
        channels = in_channels
        for block in (32, 64, 128):
            out = scaled(block, width)
            for second in (False, True):
                layers: list[nn.Module] = [CONV[axes](channels, out, 3, padding=1, bias=not batch_norm)]
                layers += [BATCH_NORM[axes](out)] if batch_norm else []
                blocks += [Skip(*layers)] if second and skip else [*layers, nn.ReLU(inplace=True)]
                channels = out
            blocks.append(MAX_POOL[axes](2))
        self.features = nn.Sequential(*blocks)
        hidden = scaled(128, width)
        size = tuple(n // 8 for n in image_size)
        pooled = tuple(min(n, _POOLED) for n in size)
        dense: list[nn.Module] = [] if size == pooled else [AVERAGE_POOL[axes](pooled)]
        dense.append(nn.Flatten())
        features = channels * math.prod(pooled)
        for _ in range(2):
            dense.append(nn.Linear(features, hidden, bias=not batch_norm))
            dense += [nn.BatchNorm1d(hidden)] if batch_norm else []
            dense.append(nn.ReLU(inplace=True))
            features = hidden
        self.classifier = nn.Sequential(*dense, nn.Linear(hidden, classes))
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (B, K) of images (B, C, *S)."""
        scores: Tensor = self.classifier(self.features(x))
        return scores

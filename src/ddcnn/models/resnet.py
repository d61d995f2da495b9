"""ResNet20 for small images (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.models.layers import AVERAGE_POOL, BATCH_NORM, CONV, MAX_POOL, check_axes, he_init, scaled


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU: a block of the plain networks of He et al."""

    def __init__(self, axes: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        conv, norm = CONV[axes], BATCH_NORM[axes]
        self.conv1 = conv(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, *S / stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)), inplace=True)


class ResidualBlock(PlainBlock):
    """A `PlainBlock` and a shortcut past it: the identity, or a 1x1 convolution where the shape changes (option B)."""

    def __init__(self, axes: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(axes, in_channels, channels, stride)
        if stride == 1 and in_channels == channels:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = nn.Sequential(CONV[axes](in_channels, channels, 1, bias=False), BATCH_NORM[axes](channels))
        self.every = MAX_POOL[axes](1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, *S / stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        # Every second pixel, then a convolution without stride: the same, but oneDNN 3.x writes past its memory in the
        # backward pass of a strided 1x1 convolution of few channels (uxlfoundation/oneDNN issue 6035). Taken as the
        # maximum of one pixel, so that its gradient lies in memory as all others do; that of an index does not.
        y += self.shortcut(self.every(x))
        return F.relu(y, inplace=True)


class ResNet20(nn.Module):
    """A convolution and 3 x 3 residual blocks of 16, 32 and 64 channels, global average pooling, dense K.

    Shortcuts are option B of He et al. (1x1 convolution with batch norm where the shape changes). Weights: He normal.
    Any image size works; below 4 pixels the last stage sees a single one.

    Parameters
    ----------
    in_channels, classes
        C and K.
    image_size
        (H, W) or (D, H, W).
    width
        Factor on all channels.
    skip
        Whether blocks have their shortcuts; without, it is the plain network that He et al. compare with.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        image_size: tuple[int, ...],
        *,
        width: float = 1.0,
        skip: bool = True,
    ) -> None:
        super().__init__()
        axes = check_axes(image_size)
        stages = [scaled(channels, width) for channels in (16, 32, 64)]
        self.conv = CONV[axes](in_channels, stages[0], 3, padding=1, bias=False)
        self.norm = BATCH_NORM[axes](stages[0])
        kind = ResidualBlock if skip else PlainBlock
        blocks: list[nn.Module] = []
        channels = stages[0]
        for stage, out in enumerate(stages):
            for block in range(3):
                blocks.append(kind(axes, channels, out, stride=2 if stage > 0 and block == 0 else 1))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.pool = AVERAGE_POOL[axes](1)
        self.classifier = nn.Linear(channels, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (B, K) of images (B, C, *S)."""
        x = self.blocks(F.relu(self.norm(self.conv(x)), inplace=True))
        scores: Tensor = self.classifier(self.pool(x).flatten(1))
        return scores

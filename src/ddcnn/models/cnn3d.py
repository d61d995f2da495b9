"""The 3-D CNN of the Keras example "3D image classification from CT scans" (Zunair 2020), after Zunair et al. 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ddcnn.errors import ModelError
from ddcnn.models.layers import AVERAGE_POOL, BATCH_NORM, CONV, MAX_POOL, check_axes, he_init, scaled

_LEAST = {"valid": 46, "same": 16}  # pixels that leave one after four blocks: n -> (n - 2) // 2, or n // 2


class CNN3D(nn.Module):
    """Four blocks of convolution, ReLU, max-pooling by 2 and batch norm; global average, dense 512, dropout, dense K.

    The published network convolves without padding, which takes images of 46 pixels and more along each axis. Smaller
    ones, such as the subimages of 32x32x32 that a grid 4x4x2 cuts from volumes of 128x128x64, are padded with zeros
    before each convolution: the parameters are the same, and four poolings leave a pixel of 16. Weights: He normal.

    On images (H, W) it is the same network with 2-D layers.

    Parameters
    ----------
    in_channels, classes
        C and K.
    image_size
        (D, H, W) or (H, W), at least 16 pixels along each axis.
    width
        Factor on all channels and hidden units.
    padding
        ``"valid"`` as published, ``"same"`` with zeros, or ``"auto"``: valid if the image is large enough for it.
    dropout
        Probability before the last layer.
    block_channels, hidden
        Channels of the blocks, each of which halves the image, and units of the dense layer, before ``width``.

    References
    ----------
    H. Zunair, keras.io/examples/vision/3D_image_classification; Zunair, Rahman, Mohammed, Cohen, arXiv 2007.13224.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        image_size: tuple[int, ...],
        *,
        width: float = 1.0,
        padding: Literal["auto", "valid", "same"] = "auto",
        dropout: float = 0.3,
        block_channels: Sequence[int] = (64, 64, 128, 256),
        hidden: int = 512,
    ) -> None:
        super().__init__()
        axes = check_axes(image_size)
        if len(block_channels) != 4:
            raise ModelError(f"cnn3d has four blocks, got block_channels of {len(block_channels)}; give four numbers")
        margin = 0 if _padding(image_size, padding) == "valid" else 1
        blocks: list[nn.Module] = []
        channels = in_channels
        for out in (scaled(n, width) for n in block_channels):
            blocks.append(CONV[axes](channels, out, 3, padding=margin))
            # the example's epsilon; its momentum of 0.99 suits trainings far longer than ours, so torch's 0.9 stays
            blocks += [nn.ReLU(inplace=True), MAX_POOL[axes](2), BATCH_NORM[axes](out, eps=1e-3)]
            channels = out
        units = scaled(hidden, width)
        self.features = nn.Sequential(*blocks, AVERAGE_POOL[axes](1), nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(channels, units), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(units, classes)
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (B, K) of images (B, C, *S)."""
        scores: Tensor = self.classifier(self.features(x))
        return scores


def _padding(image_size: tuple[int, ...], padding: str) -> str:
    if padding not in ("auto", *_LEAST):
        raise ModelError(f"cnn3d: padding should be auto, valid or same, got {padding!r}")
    if padding == "auto":
        padding = "valid" if min(image_size) >= _LEAST["valid"] else "same"
    if min(image_size) < _LEAST[padding]:
        kind = "without padding " if padding == "valid" else ""
        instead = "padding=same, " if padding == "valid" else ""
        raise ModelError(
            f"cnn3d {kind}pools four times and needs at least {_LEAST[padding]} pixels along each axis, got "
            f"{image_size}; use {instead}a coarser grid, or larger images"
        )
    return padding

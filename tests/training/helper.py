"""Three small networks on subimages of different shape, and images for them."""

from __future__ import annotations

import torch
from torch import nn

from ddcnn.data.batches import Batches
from ddcnn.decomposition import Grid
from tests.fusion.helper import randomize

GRID, SIZE, MEMBERS = Grid((1, 3)), (4, 11), 3  # 4, 4 and 3 columns: two groups


def small_networks() -> list[nn.Module]:
    return randomize(
        [
            nn.Sequential(
                nn.Conv2d(
                    1, 3, 2, bias=False
                ),  # BatchNorm would leave it a gradient of rounding errors, which Adam enlarges
                nn.BatchNorm2d(3),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(12, 3),
            ).double()
            for _ in range(MEMBERS)
        ]
    )


def small_data(*, noise: float = 2.0) -> tuple[Batches, Batches]:
    """Return classes that differ in their mean image, to some degree."""
    labels = torch.arange(70) % 3
    means = torch.randn(3, 1, *SIZE, dtype=torch.float64)
    images = means[labels] + noise * torch.randn(70, 1, *SIZE, dtype=torch.float64)
    return (
        Batches(images, labels, torch.arange(45), batch_size=10, seed=1),
        Batches(images, labels, torch.arange(45, 70), batch_size=10),
    )

"""Three small networks on subimages of different shape, and images for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ddcnn.data.batch import Batch
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.decomposition import Grid, Subimages
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
        seen(images, labels, torch.arange(45), batch_size=10, seed=1),
        seen(images, labels, torch.arange(45, 70), batch_size=10),
    )


def seen(images: Tensor, labels: Tensor, indices: Tensor, batch_size: int = 128, seed: int = 0) -> Batches:
    """Return batches of what each subdomain sees."""
    return Batches(Resident(images), labels, indices, batch_size, seed, subdomains=GRID.subdomains(SIZE))


def whole(batches: Batches) -> Batches:
    """Return the same samples as plain tensors, for one network on the whole image."""
    return replace(batches, inputs=pixels(batches), subdomains=())


def pixels(batches: Batches) -> Tensor:
    """Return all images."""
    assert isinstance(batches.inputs, Resident)
    return batches.inputs.images


def batch_of(images: Tensor, labels: Tensor, network: Any = None) -> Batch:
    """Return a batch of what each subdomain of a network sees; without a network, of all."""
    subdomains = GRID.subdomains(SIZE) if network is None else network.subdomains
    return Batch(Subimages.of(images, subdomains), labels, torch.arange(len(labels)))

"""Volumes that cost nothing to make: 2 GB of them, one at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data import Dataset
from ddcnn.data.lazy import Lazy

N, SIZE = 1908, (128, 128, 64)


def volumes(config: DataConfig) -> Dataset:
    """Return waves of two lengths, shifted from volume to volume."""
    places = torch.arange(SIZE[0] * SIZE[1] * SIZE[2], dtype=torch.int32).view(1, *SIZE)

    def volume(i: int) -> Tensor:
        return ((places + 97 * i) // (1 + i % 2)).to(torch.uint8)

    return Dataset("waves", Lazy(volume, (N, 1, *SIZE), torch.uint8), torch.arange(N) % 2, ("short", "long"))

"""Volumes that cost nothing to make: 2 GB of them, one at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data import Dataset
from ddcnn.data.lazy import Lazy

N, SIZE = 1908, (128, 128, 64)
_PERIOD = 512


def volumes(config: DataConfig) -> Dataset:
    """Return waves of two lengths, shifted from volume to volume."""
    voxels = math.prod(SIZE)
    places = torch.arange(voxels + _PERIOD, dtype=torch.int32)
    waves = [(places // length).to(torch.uint8) for length in (1, 2)]

    def volume(i: int) -> Tensor:
        first = 97 * i % _PERIOD
        return waves[i % 2][first : first + voxels].view(1, *SIZE)

    return Dataset("waves", Lazy(volume, (N, 1, *SIZE), torch.uint8), torch.arange(N) % 2, ("short", "long"))

"""A small data set."""

from __future__ import annotations

import torch

from ddcnn.data import Dataset


def make_dataset(
    samples: int = 7, channels: int = 2, size: tuple[int, ...] = (9, 11, 7), dtype: torch.dtype = torch.uint8
) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, channels, *size), generator=generator)
    if dtype == torch.float32:
        images = images / 7
    return Dataset(
        name="made",
        images=images.to(dtype),
        labels=torch.arange(samples) % 2,
        classes=("a", "b"),
        official_test=torch.arange(samples - 2, samples),
        official_validation=torch.tensor([0]),
        flip_axes=(1,),
        shift=1,
        rotation=7.5,
        plane=(0, 1),
        source={"publisher": "nobody"},
    )

"""Normalisation against numpy."""

from __future__ import annotations

import numpy as np
import torch

from ddcnn.data.moments import moments
from ddcnn.models import Normalization


def _images(n: int = 1500) -> torch.Tensor:  # more than one part of a thousand
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 4, 5), dtype=np.uint8)
    pixels[:, 1] = 7
    return torch.from_numpy(pixels)


def test_statistics_are_numpys() -> None:
    images = _images()
    normalization = Normalization.of_moments(moments(images), images[0, 0].numel())
    values = images.numpy().astype(float)
    np.testing.assert_allclose(normalization.mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(normalization.std[[0, 2]], values.std((0, 2, 3))[[0, 2]], rtol=1e-6)


def test_a_constant_channel_keeps_its_scale() -> None:
    normalization = Normalization.of_moments(moments(_images()), _images()[0, 0].numel())
    assert normalization.std[1] == 1
    assert not normalization(_images(5))[:, 1].any()


def test_volumes_in_float32() -> None:
    volumes = torch.from_numpy(np.random.default_rng(1).normal(3, 2, (50, 2, 3, 4, 5)))
    x = Normalization.of_moments(moments(volumes), volumes[0, 0].numel())(volumes.float())
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.mean((0, 2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 2, 3, 4), correction=0), 1, rtol=1e-5)


def test_statistics_are_part_of_the_state() -> None:
    normalization = Normalization.of_moments(moments(_images()), _images()[0, 0].numel())
    assert set(normalization.state_dict()) == {"mean", "std"}
    assert not list(normalization.parameters())

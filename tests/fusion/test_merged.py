"""Convolutions of few channels: several networks in one group are still apart."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import FusedCNN, fuse
from ddcnn.fusion.merged import merged_convolution, merged_members

pytestmark = pytest.mark.usefixtures("seeded")


def network(axes: int = 2) -> nn.Sequential:
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
    layers = (conv(1, 2, 3, padding=1), nn.ReLU(), conv(2, 2, 3, stride=2, padding=1), nn.Tanh())
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def networks(members: int, size: tuple[int, ...]) -> list[nn.Module]:
    made = [network(len(size)) for _ in range(members)]
    for one in made:
        one(torch.zeros(1, 1, *size))
    return list(made)


def gradients(fused: FusedCNN, x: Tensor, weights: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    scores = fused(x)
    (scores * weights).sum().backward()
    return scores.detach(), [fused.member_gradient(n) for n in range(fused.members)]


@pytest.mark.parametrize(
    ("members", "channels", "dtype", "merged"),
    [
        (64, 2, torch.float32, 4),
        (64, 2, torch.bfloat16, 8),
        (6, 2, torch.float32, 3),  # 4 does not divide 6
        (7, 2, torch.float32, 1),
        (16, 4, torch.bfloat16, 4),
        (16, 8, torch.bfloat16, 1),
        (16, 16, torch.float32, 1),
    ],
)
def test_how_many(members: int, channels: int, dtype: torch.dtype, merged: int) -> None:
    assert merged_members(members, channels, dtype) == merged


@pytest.mark.parametrize(("axes", "bias", "stride"), [*itertools.product((2, 3), (True, False), (1, 2))])
def test_equal_to_a_grouped_convolution(axes: int, bias: bool, stride: int) -> None:
    groups, C, K = 6, 2, 3
    x = torch.randn(3, groups * C, *(5, 7, 4)[:axes], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(groups * K, C, *(3,) * axes, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(groups * K, dtype=torch.float64, requires_grad=True) if bias else None
    convolve = F.conv2d if axes == 2 else F.conv3d
    expected = convolve(x, weight, shift, stride, 1, 1, groups)
    found = merged_convolution(x, weight, shift, [stride] * axes, [1] * axes, [1] * axes, groups, 3)
    torch.testing.assert_close(found, expected)
    inputs = [value for value in (x, weight, shift) if value is not None]
    slope = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, slope), torch.autograd.grad(expected, inputs, slope), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 3e38])
def test_a_network_that_diverges_leaves_the_others_alone(bad: float) -> None:
    modules = networks(4, (6, 6))
    x, weights = torch.randn(5, 4, 1, 6, 6), torch.randn(5, 4, 3)
    with torch.no_grad():
        modules[1][0].weight.fill_(bad)  # type: ignore[index]
    fused, looped = fuse(modules, "fused", sample_shape=(1, 6, 6)), fuse(modules, "looped")
    (got, slopes), (expected, truth) = gradients(fused, x, weights), gradients(looped, x, weights)
    for n in (0, 2, 3):
        assert expected[:, n].isfinite().all()
        torch.testing.assert_close(got[:, n], expected[:, n])
        for name, value in truth[n].items():
            torch.testing.assert_close(slopes[n][name], value)


def test_an_infinite_gradient_leaves_the_others_alone() -> None:
    modules = networks(4, (6, 6))
    x, weights = torch.randn(5, 4, 1, 6, 6), torch.randn(5, 4, 3)
    weights[:, 2] = float("inf")
    fused, looped = fuse(modules, "fused", sample_shape=(1, 6, 6)), fuse(modules, "looped")
    (_, slopes), (_, truth) = gradients(fused, x, weights), gradients(looped, x, weights)
    for n in (0, 1, 3):
        for name, value in truth[n].items():
            assert value.isfinite().all()
            torch.testing.assert_close(slopes[n][name], value)


@pytest.mark.parametrize("layer", [
    {"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2}, {"padding": 1, "bias": False},
])  # fmt: skip
def test_one_pixel(layer: dict[str, int]) -> None:
    modules = [nn.Sequential(nn.Conv2d(3, 4, 3, **layer), nn.BatchNorm2d(4), nn.Flatten()) for _ in range(5)]
    x, weights = torch.randn(7, 5, 3, 1, 1), torch.randn(7, 5, 4)
    fused, looped = fuse(modules, "fused", sample_shape=(3, 1, 1)), fuse(modules, "looped")
    (got, slopes), (expected, truth) = gradients(fused, x, weights), gradients(looped, x, weights)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for found, true in zip(slopes, truth, strict=True):
        for name, value in true.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)

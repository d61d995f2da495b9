"""Networks that nobody thought of: hypothesis builds small random CNNs, and each fused one equals separate ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fusion.handwritten import AVERAGE, BATCH_NORM, CONV, INSTANCE_NORM, MAX_POOL, TRANSPOSED
from tests.fusion.helper import assert_equal_to_separate, randomize

AVERAGE_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE_MAX = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Softplus]
LARGEST = 9  # pixels along an axis, channels


@dataclass(frozen=True)
class Plan:
    """How to build a part of a network, and the shape (C, *s) that it gives."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    @property
    def axes(self) -> int:
        return len(self.shape) - 1


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Joined(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


class Gated(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.body(x))


@st.composite
def convolution(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    out = groups * draw(st.integers(1, max(1, 6 // groups)))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    kernel, stride, dilation, padding = [], [], [], []
    for pixels in size:
        padding.append(draw(st.integers(0, min(2, pixels - 1))))
        kernel.append(draw(st.integers(1, min(3, pixels + 2 * padding[-1]))))
        widest = (pixels + 2 * padding[-1] - 1) // max(1, kernel[-1] - 1)
        dilation.append(draw(st.integers(1, max(1, min(2, widest)))))
        stride.append(draw(st.integers(1, 2)))
    options = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}
    options |= {"padding_mode": mode, "bias": draw(st.booleans())}
    return _plan(lambda: CONV[len(size)](channels, out, tuple(kernel), **options), shape)


@st.composite
def transposed(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    out = groups * draw(st.integers(1, max(1, 4 // groups)))
    stride = tuple(draw(st.integers(1, 2 if pixels <= 4 else 1)) for pixels in size)
    dilation = tuple(draw(st.integers(1, 2)) for _ in size)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    kernel = tuple(draw(st.integers(1, 3)) for _ in size)
    padding = tuple(draw(st.integers(0, d * (k - 1) // 2)) for k, d in zip(kernel, dilation, strict=True))
    options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
    options |= {"bias": draw(st.booleans())}
    return _plan(lambda: TRANSPOSED[len(size)](channels, out, kernel, **options), shape)


@st.composite
def norm(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    channels, *size = shape
    affine, tracked = draw(st.booleans()), draw(st.booleans())
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    batch = lambda: BATCH_NORM[len(size)](channels, affine=affine, track_running_stats=tracked)  # noqa: E731
    group = lambda: nn.GroupNorm(groups, channels, affine=affine)  # noqa: E731
    instance = lambda: INSTANCE_NORM[len(size)](channels, affine=affine, track_running_stats=tracked)  # noqa: E731
    layer = lambda: nn.LayerNorm(shape, elementwise_affine=affine)  # noqa: E731
    # A norm of one value has nothing but rounding to divide by its deviation: not to be compared, on some processors.
    # Instance norm of one pixel is an error.
    several = [(group, channels // groups * math.prod(size)), (layer, math.prod(shape)), (instance, max(size))]
    return Plan(draw(st.sampled_from([batch, *(make for make, values in several if values > 1)])), shape)


@st.composite
def pool(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    axes, size = len(shape) - 1, shape[1:]
    kernel = tuple(draw(st.integers(1, min(3, pixels))) for pixels in size)
    stride = tuple(draw(st.integers(1, 2)) for _ in size)
    padding, ceil = tuple(draw(st.integers(0, k // 2)) for k in kernel), draw(st.booleans())
    cells = tuple(draw(st.integers(1, pixels)) for pixels in size)
    counted = draw(st.booleans())
    kinds = [
        lambda: MAX_POOL[axes](kernel, stride, padding, ceil_mode=ceil),
        lambda: AVERAGE_POOL[axes](kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted),
        lambda: AVERAGE[axes](cells),
        lambda: ADAPTIVE_MAX[axes](cells),
    ]
    return _plan(draw(st.sampled_from(kinds)), shape)


@st.composite
def activation(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    kinds = [*ACTIVATIONS, nn.PReLU, lambda: nn.PReLU(shape[0])]
    return Plan(draw(st.sampled_from(kinds)), shape)


@st.composite
def branch(draw: st.DrawFn, shape: tuple[int, ...]) -> Plan:
    """A residual addition, a dense block's concatenation, or squeeze-excitation."""
    axes, channels = len(shape) - 1, shape[0]
    out = draw(st.integers(1, 3))
    kinds = {
        "residual": lambda: Residual(CONV[axes](channels, channels, 3, padding=1)),
        "joined": lambda: Joined(nn.Sequential(nn.Softplus(), CONV[axes](channels, out, 3, padding=1))),
        "gated": lambda: Gated(
            nn.Sequential(AVERAGE[axes](1), CONV[axes](channels, out, 1), nn.SiLU(), CONV[axes](out, channels, 1))
        ),
    }
    return _plan(kinds[draw(st.sampled_from(sorted(kinds)))], shape)


@st.composite
def networks(draw: st.DrawFn) -> Plan:
    """A few parts, one after the other, and a head: (C, *s) -> 3 scores. The shape is that of the input."""
    axes = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), *(draw(st.integers(2, LARGEST - 2 * axes + 2)) for _ in range(axes)))
    plans = [draw(convolution(shape))]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([convolution, transposed, norm, pool, activation, branch]))
        plan = draw(kind(plans[-1].shape))
        if max(plan.shape) <= LARGEST:
            plans.append(plan)
    features = torch.Size(plans[-1].shape).numel()
    head = draw(st.sampled_from([[], [nn.Tanh]]))
    parts = [*(p.make for p in plans), nn.Flatten, *head, lambda: nn.Linear(features, 3)]
    return Plan(lambda: nn.Sequential(*[make() for make in parts]), shape)


def _plan(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Plan:
    with torch.device("meta"):
        return Plan(make, tuple(make()(torch.empty(1, *shape)).shape[1:]))


@pytest.mark.usefixtures("seeded")
@settings(deadline=None, derandomize=True, max_examples=50, database=None)
@given(networks(), st.sampled_from(["sgd", "adamw"]))
def test_random_networks_fuse_exactly(plan: Plan, optimizer: str) -> None:
    networks = randomize([plan.make() for _ in range(3)])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, *plan.shape, generator=generator, dtype=torch.float64)
    assert_equal_to_separate(networks, x, backend="fused", optimizers=[optimizer], steps=2, pace=0.1, example=x)

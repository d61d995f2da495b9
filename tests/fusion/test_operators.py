"""Each operator of the table, alone, fused, equals separate ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import fuse
from tests.fusion.helper import assert_equal_to_separate, randomize

pytestmark = pytest.mark.usefixtures("seeded")


def _head(channels: int, *, axes: int = 2) -> list[nn.Module]:
    pool = nn.AdaptiveAvgPool2d((2, 1)) if axes == 2 else nn.AdaptiveAvgPool3d((1, 2, 1))
    return [pool, nn.Flatten(), nn.Linear(2 * channels, 3)]


LAYERS_2D: dict[str, Callable[[], list[nn.Module]]] = {
    "conv-stride": lambda: [nn.Conv2d(4, 6, 3, stride=(2, 1)), *_head(6)],
    "conv-dilation": lambda: [nn.Conv2d(4, 6, (3, 2), dilation=(1, 2)), *_head(6)],
    "conv-groups": lambda: [nn.Conv2d(4, 6, 3, groups=2), *_head(6)],
    "conv-depthwise": lambda: [nn.Conv2d(4, 8, 3, groups=4, bias=False), *_head(8)],
    "conv-without-bias": lambda: [nn.Conv2d(4, 6, 1, bias=False), *_head(6)],
    "conv-padding": lambda: [nn.Conv2d(4, 6, 3, padding=(2, 1)), *_head(6)],
    "conv-same": lambda: [nn.Conv2d(4, 6, (3, 5), padding="same"), *_head(6)],
    "conv-valid": lambda: [nn.Conv2d(4, 6, 3, padding="valid"), *_head(6)],
    "conv-reflect": lambda: [nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), *_head(6)],
    "conv-replicate": lambda: [nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), *_head(6)],
    "conv-circular": lambda: [nn.Conv2d(4, 6, 3, padding=(1, 2), stride=2, padding_mode="circular"), *_head(6)],
    "conv-same-circular": lambda: [nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), *_head(6)],
    "norm": lambda: [nn.BatchNorm2d(4), *_head(4)],
    "norm-cumulative": lambda: [nn.BatchNorm2d(4, momentum=None), *_head(4)],
    "norm-momentum": lambda: [nn.BatchNorm2d(4, momentum=0.4, eps=0.1), *_head(4)],
    "norm-still": lambda: [nn.BatchNorm2d(4, momentum=0.0), *_head(4)],
    "norm-without-affine": lambda: [nn.BatchNorm2d(4, affine=False), *_head(4)],
    "norm-without-statistics": lambda: [nn.BatchNorm2d(4, track_running_stats=False), *_head(4)],
    "linear-without-bias": lambda: [nn.Flatten(), nn.Linear(4 * 42, 5, bias=False), nn.Linear(5, 3)],
    "flatten-twice": lambda: [nn.Flatten(1, -1), nn.Flatten(), nn.Linear(4 * 42, 3)],
    "max-pool": lambda: [nn.MaxPool2d((2, 3), stride=(1, 2), padding=1, ceil_mode=True), *_head(4)],
    "average-pool": lambda: [nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), *_head(4)],
    "average-pool-divisor": lambda: [nn.AvgPool2d((2, 3), divisor_override=5, ceil_mode=True), *_head(4)],
    "adaptive-max-pool": lambda: [nn.AdaptiveMaxPool2d((3, None)), *_head(4)],
    "identity": lambda: [nn.Identity(), *_head(4)],
    "relu": lambda: [nn.ReLU(), *_head(4)],
    "relu-in-place": lambda: [nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), *_head(4)],
    "dropout-of-nothing": lambda: [nn.Dropout(0.0), *_head(4)],
    "nested": lambda: [nn.Sequential(nn.Sequential(nn.Conv2d(4, 5, 2)), nn.ReLU()), nn.Sequential(*_head(5))],
}

LAYERS_3D: dict[str, Callable[[], list[nn.Module]]] = {
    "conv": lambda: [nn.Conv3d(4, 6, (1, 3, 2), stride=(1, 2, 1), groups=2), *_head(6, axes=3)],
    "conv-replicate": lambda: [nn.Conv3d(4, 6, 3, padding=(1, 2, 0), padding_mode="replicate"), *_head(6, axes=3)],
    "norm": lambda: [nn.BatchNorm3d(4, momentum=None), *_head(4, axes=3)],
    "max-pool": lambda: [nn.MaxPool3d((1, 2, 3), dilation=(1, 2, 1)), *_head(4, axes=3)],
    "average-pool": lambda: [nn.AvgPool3d(2, padding=1, count_include_pad=False), *_head(4, axes=3)],
    "adaptive-max-pool": lambda: [nn.AdaptiveMaxPool3d((None, 3, 2)), *_head(4, axes=3)],
}


STEPS: dict[str, Any] = {"optimizers": ["sgd"], "steps": 2}  # more of them, and of both: test_networks.py


def _input(*size: int) -> Tensor:
    return torch.randn(4, 3, 4, *size, dtype=torch.float64)


@pytest.mark.parametrize("layers", LAYERS_2D.values(), ids=LAYERS_2D)
def test_layer_2d(layers: Callable[[], list[nn.Module]]) -> None:
    networks = randomize([nn.Sequential(*layers()) for _ in range(3)])
    assert_equal_to_separate(networks, _input(6, 7), **STEPS)


@pytest.mark.parametrize("layers", LAYERS_3D.values(), ids=LAYERS_3D)
def test_layer_3d(layers: Callable[[], list[nn.Module]]) -> None:
    networks = randomize([nn.Sequential(*layers()) for _ in range(3)])
    assert_equal_to_separate(networks, _input(3, 6, 5), **STEPS)


class Functional(nn.Module):
    """A convolution, functions and methods on activations, and a head."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.conv, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.between(x, self.conv(x))
        return self.linear(torch.flatten(self.pool(y), 1))


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add-number": lambda _, y: 1 + y + 2.5,
    "add-alpha": lambda x, y: torch.add(x, y, alpha=-3),
    "add-keywords": lambda x, y: torch.add(input=y, other=x, alpha=2),
    "add-method-alpha": lambda x, y: x.add(y, alpha=0.5),
    "add-in-place": lambda x, y: y.add_(x),
    "multiply": lambda x, y: 2 * x * y,
    "multiply-in-place": lambda _, y: y.mul_(3),
    "relu-function": lambda _, y: F.relu(y, inplace=True),
    "relu-torch": lambda _, y: torch.relu(y),
    "relu-methods": lambda _, y: (y.relu() * 2).relu_(),
    "contiguous": lambda x, y: (x * y).contiguous(),
}


@pytest.mark.parametrize("between", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function(between: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert_equal_to_separate(randomize([Functional(between) for _ in range(3)]), _input(5, 6), **STEPS)


class InPlace(Functional):
    """Operators that assign."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(x)
        y += x
        y += 2
        return self.linear(self.pool(y).flatten(1))


class SqueezeAndExcite(Functional):
    """A channel gate: a pooled tensor that broadcasts over pixels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(x)
        y = y * F.relu(self.conv(self.pool(y)))
        return self.linear(self.pool(y.add_(self.pool(x))).flatten(start_dim=1))


@pytest.mark.parametrize("kind", [InPlace, SqueezeAndExcite])
def test_network(kind: type[Functional]) -> None:
    assert_equal_to_separate(randomize([kind(torch.add) for _ in range(3)]), _input(5, 6), **STEPS)


def test_linear_networks_on_vectors() -> None:
    networks = randomize([nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(3)])
    assert_equal_to_separate(networks, _input(), **STEPS)


def test_statistics_that_have_seen_different_numbers_of_batches() -> None:
    """Best epochs differ, so that after a first training the counts do as well."""
    networks = randomize([nn.Sequential(nn.BatchNorm2d(4, momentum=None), *_head(4)).double() for _ in range(3)])
    fused, x = fuse(networks, backend="fused"), _input(5, 6)
    for n, network in enumerate(networks):
        network[0].num_batches_tracked.fill_(10 * n)
        fused.load_member_state(n, network.state_dict())
    fused(x)
    for n, network in enumerate(networks):
        network(x[:, n])
        torch.testing.assert_close(fused.member_state(n), dict(network.state_dict()))


def test_dropout_zeroes_each_network_in_its_own_way() -> None:
    fused = fuse([nn.Sequential(nn.Dropout(0.5), nn.Identity()) for _ in range(3)], backend="fused")
    y = fused(torch.ones(1000, 3, 4))
    assert set(y.unique().tolist()) == {0, 2}
    kept = y.bool().flatten(1).double()
    assert abs(float(kept.mean()) - 0.5) < 0.02
    assert float((kept.T.corrcoef() - torch.eye(12)).abs().max()) < 0.15  # neither shared nor repeated
    assert torch.equal(fused.eval()(y), y)


def test_dropout_equals_separate_networks_in_evaluation() -> None:
    networks = randomize([nn.Sequential(nn.Conv2d(4, 6, 3), nn.Dropout(0.7), *_head(6)) for _ in range(3)])
    fused, x = fuse([n.double() for n in networks], backend="fused").eval(), _input(6, 5)
    expected = torch.stack([network.eval()(x[:, n]) for n, network in enumerate(networks)], 1)
    torch.testing.assert_close(fused(x), expected, rtol=1e-12, atol=1e-12)

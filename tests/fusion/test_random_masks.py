"""Dropout and stochastic depth: each network draws masks of its own, at the right rate, of the right shape."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import Backend, fuse
from tests.fusion import handwritten, networks
from tests.fusion.helper import randomize

pytestmark = pytest.mark.usefixtures("seeded")
BATCH, MEMBERS, RATE = 2000, 3, 0.3
SIZE = (4, 2, 3)  # C, H, W


class Function(nn.Module):
    """A function (x, p, training) as a layer that takes part in train() and eval()."""

    def __init__(self, function: Callable[[Tensor, float, bool], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, RATE, self.training)


def _monai() -> nn.Module:
    return Function(networks.library("monai.networks.nets.efficientnet").drop_connect)


def _transformers() -> nn.Module:
    return networks.library("transformers.models.convnext.modeling_convnext").ConvNextDropPath(RATE)


# A layer, and how many of the axes (N, C, H, W) tell masks apart: N alone for stochastic depth.
DROPS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "dropout": (lambda: nn.Dropout(RATE), 4),
    "dropout-function": (lambda: Function(F.dropout), 4),
    "dropout-2d": (lambda: nn.Dropout2d(RATE), 2),
    "dropout-2d-function": (lambda: Function(F.dropout2d), 2),
    "stochastic-depth": (lambda: handwritten.StochasticDepth(RATE), 1),
    "monai-drop-connect": (_monai, 1),
    "transformers-drop-path": (_transformers, 1),
}


# torch.func.vmap refuses to fill an empty tensor with other random numbers for each network.
NOT_VMAPPED = {"stochastic-depth"}


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "fused") for name in DROPS), *((name, "vmapped") for name in DROPS if name not in NOT_VMAPPED)],
)
def test_masks(name: str, backend: Backend) -> None:
    make, axes = DROPS[name]
    fused, x = fuse([_exposed(make()) for _ in range(MEMBERS)], backend=backend), torch.ones(BATCH, MEMBERS, *SIZE)
    assert fused.backend == backend, fused.reason
    y = fused.train()(x).detach().view(BATCH, MEMBERS, *SIZE)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - RATE)))
    kept = (y != 0).flatten(1 + axes) if axes < 4 else (y != 0).unsqueeze(-1)
    assert torch.equal(kept.all(-1), kept.any(-1))  # one draw for all that a mask covers
    _assert_independent(kept[..., 0].flatten(1).double())
    assert torch.equal(fused.eval()(x), x.flatten(2))


def _exposed(drop: nn.Module) -> nn.Module:
    """Return a network whose scores are what the layer leaves of ones."""
    identity = nn.Conv2d(4, 4, 1, groups=4, bias=False)
    nn.init.ones_(identity.weight)
    return nn.Sequential(identity, drop, nn.Flatten())


def _assert_independent(kept: Tensor) -> None:
    """(B, masks): right rate, and no correlation between networks, channels, pixels, or one sample and the next."""
    batch, masks = kept.shape
    rates = kept.mean(0)
    assert float((rates - (1 - RATE)).abs().max()) < 5 * (RATE * (1 - RATE) / batch) ** 0.5
    noise = 5 / batch**0.5
    assert float((kept.T.corrcoef() - torch.eye(masks)).abs().max()) < noise
    centred = kept - rates
    assert float((centred[1:] * centred[:-1]).mean(0).abs().max()) < noise * RATE * (1 - RATE)


# Rates as they are used in practice
SHIPPED: dict[str, Callable[[], nn.Module]] = {
    "monai-densenet121": lambda: networks.densenet121(0.2),
    "monai-efficientnet-b0": lambda: networks.efficientnet_b0(0.2),
    "transformers-convnext": lambda: networks.convnext(0.4),
    "transformers-mobilenet-v2": lambda: networks.mobilenet_v2(0.8),
}


@pytest.mark.parametrize("backend", ["fused", "vmapped"])
@pytest.mark.parametrize("name", SHIPPED)
def test_equal_networks_draw_different_masks(name: str, backend: Backend) -> None:
    """They see the same images: with common masks, or with none, they would say the same."""
    (network,) = randomize([SHIPPED[name]().double()])
    images = torch.randn(8, *networks.PUBLIC[name].shape, dtype=torch.float64)
    x = images.unsqueeze(1).expand(-1, 2, *images.shape[1:])
    fused = fuse([network, copy.deepcopy(network)], backend=backend, example=x)
    assert fused.backend == backend, fused.reason
    state = copy.deepcopy(fused.state_dict())
    first, second = (_scores(fused, state, x) for _ in range(2))
    different = [(first[:, 0], first[:, 1]), (first[:, 0], second[:, 0]), (first[:, 0], second[:, 1])]
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in different)
    expected = network.eval()(images).unsqueeze(1).expand(-1, 2, -1)
    torch.testing.assert_close(fused.eval()(x), expected, rtol=1e-7, atol=1e-9)


def _scores(fused: nn.Module, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return scores in training mode, and put the running statistics back."""
    with torch.no_grad():
        scores = fused.train()(x)
    fused.load_state_dict(state)
    return scores

"""Whole networks, ours, public and hand-written, truly fuse, and equal separate ones in every backend."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.fusion import fuse
from tests.fusion.helper import assert_equal_to_separate, gradients_by_network, randomize
from tests.fusion.networks import HANDWRITTEN, NETWORKS, OURS, PUBLIC

pytestmark = pytest.mark.usefixtures("seeded")


def _networks(name: str, members: int = 2, batch: int = 3) -> tuple[list[nn.Module], Tensor]:
    if name in PUBLIC:
        batch = 6  # they end in few pixels, and a batch norm of few values amplifies rounding
    networks = randomize([NETWORKS[name].make() for _ in range(members)])
    return networks, torch.randn(batch, members, *NETWORKS[name].shape, dtype=torch.float64)


def _options(name: str) -> dict[str, Any]:
    """Return how public networks are trained, which are large: with one of the optimisers that the others try."""
    return {"pace": 0.01, "optimizers": ["adamw"], "steps": 2} if name in PUBLIC else {}


@pytest.mark.parametrize("name", NETWORKS)
def test_fused(name: str) -> None:
    networks, x = _networks(name)
    assert_equal_to_separate(networks, x, backend="fused", example=x, **_options(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_vmapped(name: str) -> None:
    networks, x = _networks(name)
    assert_equal_to_separate(networks, x, backend="vmapped", **_options(name))


@pytest.mark.parametrize("name", [*OURS, *HANDWRITTEN])
def test_looped(name: str) -> None:
    networks, x = _networks(name)
    assert_equal_to_separate(networks, x, backend="looped", optimizers=["sgd"])


@pytest.mark.parametrize("name", HANDWRITTEN)
def test_three_networks(name: str) -> None:
    """Two may be mistaken for a batch of two, or for two channels."""
    networks, x = _networks(name, 3, batch=4)
    assert_equal_to_separate(networks, x, backend="fused", optimizers=["sgd"], steps=2, example=x)


@pytest.mark.parametrize(("members", "optimizer"), [(1, "sgd"), (5, "adamw")])
@pytest.mark.parametrize("name", OURS)
def test_one_and_five_networks(name: str, members: int, optimizer: str) -> None:
    networks, x = _networks(name, members, batch=4)
    assert_equal_to_separate(networks, x, backend="fused", optimizers=[optimizer], steps=2)


@pytest.mark.parametrize("name", HANDWRITTEN)
def test_float32(name: str) -> None:
    networks, x = _networks(name)
    assert_equal_to_separate(networks, x.float(), backend="fused", optimizers=["adamw"], example=x.float())


@pytest.mark.parametrize("name", [*OURS, *PUBLIC])
def test_float32_is_as_exact_as_separate_networks(name: str) -> None:
    """Deep networks with random parameters amplify rounding, so that float64 has to say what is true."""
    networks, x = _networks(name)
    true = _outputs_and_gradients(networks, x)
    alone = _outputs_and_gradients([n.float() for n in networks], x.float())
    together = _outputs_and_gradients(networks, x.float(), fused=True)
    for name_, expected in true.items():
        errors = [float((got[name_] - expected).norm() / expected.norm()) for got in (alone, together)]
        assert errors[1] <= 5 * errors[0] + 1e-6, (name_, errors)


def _outputs_and_gradients(networks: list[nn.Module], x: Tensor, *, fused: bool = False) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    networks = [copy.deepcopy(network).to(x.dtype).train() for network in networks]
    whole = fuse(networks, backend="fused" if fused else "looped", example=x.detach() if fused else None)
    assert whole.backend == ("fused" if fused else "looped"), whole.reason
    scores = whole(x)
    scores.square().sum().backward()
    gradients = [g.flatten() for own in gradients_by_network(whole) for g in own.values()]
    return {"scores": scores.detach().double(), "input": x.grad.double(), "parameters": torch.cat(gradients).double()}


def test_every_named_network_is_here() -> None:
    """Of the libraries; each is small, but as deep as its name says."""
    convolutions = {name: sum(_is_convolution(m) for m in PUBLIC[name].make().modules()) for name in PUBLIC}
    assert convolutions["monai-densenet121"] == 120  # and a linear layer
    assert convolutions["monai-resnet18-2d"] == convolutions["monai-resnet18-3d"] == 17 + 3  # three in shortcuts
    assert convolutions["monai-efficientnet-b0"] == 1 + 16 * 4 - 1 + 1 + 16
    assert {name.split("-")[0] for name in PUBLIC} == {"monai", "transformers"}


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.Conv3d)

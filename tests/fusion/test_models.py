"""The built-in networks, fused, equal separate ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddcnn.models import build
from tests.fusion.helper import assert_equal_to_separate, randomize

CASES = {
    "vgg9-2d": ("vgg9", (8, 11), {}),
    "vgg9-2d-without-norm": ("vgg9", (9, 8), {"batch_norm": False}),
    "vgg9-3d": ("vgg9", (8, 10, 9), {}),
    "resnet20-2d": ("resnet20", (5, 6), {}),
    "resnet20-3d": ("resnet20", (2, 5, 4), {}),
    "cnn3d": ("cnn3d", (16, 17, 16), {"dropout": 0.0}),
}


def _networks(case: str, members: int) -> tuple[list[nn.Module], torch.Tensor]:
    name, size, options = CASES[case]
    networks = [build(name, 2, 3, size, width=0.08, seed=n, options=options) for n in range(members)]
    x = torch.randn(4, members, 2, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return randomize(networks), x


@pytest.mark.parametrize(("members", "optimizers"), [(1, ["sgd"]), (2, ["sgd", "adamw"]), (5, ["adamw"])])
@pytest.mark.parametrize("case", CASES)
def test_float64(case: str, members: int, optimizers: list[str]) -> None:
    networks, x = _networks(case, members)
    assert assert_equal_to_separate(networks, x, optimizers=optimizers).backend == "fused"


@pytest.mark.parametrize("case", CASES)
def test_float32(case: str) -> None:
    networks, x = _networks(case, 2)
    assert assert_equal_to_separate(networks, x.float(), optimizers=["adamw"]).backend == "fused"


@pytest.mark.parametrize("case", ["vgg9-2d", "resnet20-3d"])
def test_loop(case: str) -> None:
    networks, x = _networks(case, 2)
    assert assert_equal_to_separate(networks, x, backend="looped", optimizers=["sgd"]).backend == "looped"

"""A forward pass that is recorded and replayed is the one that the code would have run, bit for bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddcnn.fusion import FusedCNN, fuse
from ddcnn.fusion.recorded import PASSES, Recorded
from ddcnn.training.precision import autocast

pytestmark = pytest.mark.usefixtures("seeded", "without_dice")


@pytest.fixture
def without_dice() -> Iterator[None]:
    """Beartype draws from Python's generator to choose what it checks, and what draws is not recorded."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Watched(TorchFunctionMode):
    """Does nothing; but who is watched runs its code."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Partly(nn.Module):
    """Has a part without gradients, which a list of operators does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.first(x)
        return self.second(y + x)


def cnn() -> nn.Module:
    first = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.3))
    return nn.Sequential(*first, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))


def train(fused: FusedCNN, batches: list[Tensor], precision: Any = "float32", *, watched: bool = False) -> list[Tensor]:
    """Return the scores of each step."""
    optimizer = torch.optim.SGD(fused.parameters(), 0.1, 0.9)
    seen = []
    for step, x in enumerate(batches):
        torch.manual_seed(step)
        with autocast(precision, x.device):
            if watched:
                with Watched():
                    scores = fused(x)
            else:
                scores = fused(x)
        optimizer.zero_grad()
        scores.float().square().mean().backward()
        optimizer.step()
        seen.append(scores.detach())
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [cnn, Partly])
def test_a_training_is_the_same(make: Any, precision: str) -> None:
    shape = (1, 8, 8) if make is cnn else (4,)
    fused = fuse([make() for _ in range(3)], "fused", sample_shape=shape).train()
    twin = copy.deepcopy(fused)
    batches = [torch.randn(4 if step % 5 else 3, 3, *shape) for step in range(2 * PASSES)]  # two kinds
    replayed, run = train(fused, batches, precision), train(twin, batches, precision, watched=True)
    assert all(map(torch.equal, replayed, run))
    assert all(map(torch.equal, fused.state_dict().values(), twin.state_dict().values()))


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_code_that_draws_outside_of_torch_runs_each_time(draw: Callable[[], float]) -> None:
    """Layers that are left out now and then by Python's or NumPy's dice: recorded, they would be there for ever."""
    calls = []

    def run(state: Any, x: Tensor) -> Tensor:
        calls.append(None)
        return x * state[0] if draw() < 0.999 else x + state[0]

    recorded, weight = Recorded(nn.Linear(1, 1)), torch.ones(3, requires_grad=True)
    for _ in range(PASSES + 3):
        recorded(run, [weight], torch.ones(3))
    before = len(calls)
    recorded(run, [weight], torch.ones(3))
    assert len(calls) == before + 1


def test_the_code_runs_no_more() -> None:
    """Else nothing of the above is about a replay."""
    calls = []

    def run(state: Any, x: Tensor) -> Tensor:
        calls.append(None)
        return x * state[0]

    recorded, weight = Recorded(nn.Linear(1, 1)), torch.ones(3, requires_grad=True)
    for _ in range(PASSES + 3):
        recorded(run, [weight], torch.ones(3))
    before = len(calls)
    assert torch.equal(recorded(run, [2 * weight], torch.ones(3)), torch.full((3,), 2.0))
    assert len(calls) == before


def test_a_changed_attribute_is_seen() -> None:
    layer, weight = nn.Dropout(0.5), torch.ones(3, requires_grad=True)
    recorded = Recorded(layer)

    def run(state: Any, x: Tensor) -> Tensor:
        return x * state[0] * layer.p

    for _ in range(PASSES + 3):
        assert torch.equal(recorded(run, [weight], torch.ones(3)), torch.full((3,), 0.5))
    layer.p = 0.25
    assert torch.equal(recorded(run, [weight], torch.ones(3)), torch.full((3,), 0.25))


def test_what_cannot_be_recorded_runs() -> None:
    def run(state: Any, x: Tensor) -> Tensor:
        return x * state[0] if float(x.sum()) > 0 else -x

    recorded, weight = Recorded(nn.Linear(1, 1)), torch.ones(3, requires_grad=True)
    for _ in range(PASSES + 3):
        assert torch.equal(recorded(run, [weight], torch.ones(3)), torch.ones(3))
    assert torch.equal(recorded(run, [weight], -torch.ones(3)), torch.ones(3))


def test_a_copy_watches_its_own_layers() -> None:
    layer = nn.Sequential(nn.Dropout(0.5))
    recorded, weight = Recorded(layer), torch.ones(3, requires_grad=True)
    twin, twin_layer = copy.deepcopy((recorded, layer))

    def run(state: Any, x: Tensor) -> Tensor:
        return x * state[0] * twin_layer[0].p  # type: ignore[operator]

    for _ in range(PASSES + 3):
        twin(run, [weight], torch.ones(3))
    twin_layer[0].p = 0.25
    assert torch.equal(twin(run, [weight], torch.ones(3)), torch.full((3,), 0.25))

"""A forward pass that is recorded and replayed is the one that the code would have run, bit for bit."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddcnn.fusion import FusedCNN, fuse
from ddcnn.fusion.backend_choice import training_step
from ddcnn.fusion.recorded import PASSES, Recorded
from ddcnn.training.precision import autocast

pytestmark = pytest.mark.usefixtures("seeded", "without_dice")


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


class Whole(nn.Module):
    """A layer, by code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


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


@pytest.mark.parametrize(("steps", "runs"), [(1, 1), (PASSES, 1), (2 * PASSES, 0), (None, 0)])
def test_a_step_is_timed_as_most_of_its_training_runs(steps: int | None, runs: int) -> None:
    """A short training is not recorded, and so recording is not a part of its trial."""
    calls = []
    fused = fuse([Whole() for _ in range(3)], "fused", sample_shape=(4,))
    step = training_step(fused, torch.randn(5, 3, 4), steps=steps)
    step()
    sys.setprofile(lambda frame, event, _: calls.append(event) if frame.f_code is Whole.forward.__code__ else None)
    try:
        step()
    finally:
        sys.setprofile(None)
    assert calls.count("call") == runs


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


FACTORS: dict[str, Any] = {"one": 1.0, "in": {"two": [1.0]}}


def _scaled(x: Tensor) -> Tensor:
    return x * FACTORS["in"]["two"][0]


class Counter:
    """An object whose state nobody but itself knows."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = 0


class Schedule:
    """An object that hides nothing, and knows itself."""

    def __init__(self) -> None:
        self.p, self.own = 1.0, self

    def value(self) -> float:
        return self.p


settings = ModuleType("settings_of_a_user")
settings.inner = ModuleType("settings_of_a_user.inner")  # type: ignore[attr-defined]
settings.inner.factor = 1.0


class Reads(nn.Module):
    """A network whose code reads more than its parameters; ``change`` changes what that is."""

    factor = 1.0

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of, self.linear = of, nn.Linear(4, 2)
        self.options, self.plain = {"a": {"p": [1.0]}}, SimpleNamespace(p=1.0)
        self.schedule = Schedule()
        self.value = Schedule().value
        if of == "object":
            self.counter = Counter()
        factor = 1.0

        def enclosed() -> float:
            return factor

        def enclose(value: float) -> None:
            nonlocal factor
            factor = value

        self.enclosed, self.enclose = enclosed, enclose

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(x)
        if self.of == "global":
            return scores * FACTORS["one"]
        if self.of == "global of a function":
            return _scaled(scores)
        if self.of == "class":
            return scores * self.factor
        if self.of == "nested":
            return scores * self.options["a"]["p"][0]
        if self.of == "closure":
            return scores * self.enclosed()
        if self.of == "object":
            self.counter.steps += 1
            return scores * (1.0 if self.counter.steps <= 2 * PASSES else 0.5)
        if self.of == "object of a class":
            return scores * self.schedule.p
        if self.of == "method of an object":
            return scores * self.value()
        if self.of == "module in a module":
            return scores * settings.inner.factor  # type: ignore[no-any-return]
        return scores * self.plain.p

    def change(self, value: float) -> None:
        if self.of == "global":
            FACTORS["one"] = value
        elif self.of == "global of a function":
            FACTORS["in"]["two"][0] = value
        elif self.of == "class":
            type(self).factor = value
        elif self.of == "nested":
            self.options["a"]["p"][0] = value
        elif self.of == "closure":
            self.enclose(value)
        elif self.of == "object of a class":
            self.schedule.p = value
        elif self.of == "method of an object":
            self.value.__self__.p = value  # type: ignore[attr-defined]
        elif self.of == "module in a module":
            settings.inner.factor = value
        else:
            self.plain.p = value


READ = (
    *("global", "global of a function", "class", "nested", "closure"),
    *("plain object", "object of a class", "method of an object", "module in a module"),
)


@pytest.mark.parametrize("of", READ)
def test_whatever_the_code_reads_is_seen_to_change(of: str) -> None:
    network = Reads(of)
    recorded, state, x = Recorded(network), [*network.parameters()], torch.ones(3, 4)
    calls = []

    def run(state: Any, x: Tensor) -> Tensor:
        calls.append(None)
        return torch.func.functional_call(network, dict(zip(["linear.weight", "linear.bias"], state, strict=True)), x)

    try:
        for _ in range(PASSES + 3):
            before = recorded(run, state, x)
        seen = len(calls)
        assert torch.equal(recorded(run, state, x), before)
        assert len(calls) == seen  # it is replayed
        network.change(0.5)
        assert torch.equal(recorded(run, state, x), 0.5 * before)
        network.change(1.0)
        assert torch.equal(recorded(run, state, x), before)
    finally:
        network.change(1.0)


def test_an_object_with_a_state_of_its_own_is_run_each_time() -> None:
    """Also none of its passes is one more than the training made: a recording would count."""
    network = Reads("object")
    recorded, state, x = Recorded(network), [*network.parameters()], torch.ones(3, 4)
    found = [recorded(lambda _state, x: network(x), state, x) for _ in range(3 * PASSES)]
    assert network.counter.steps == 3 * PASSES
    for step, scores in enumerate(found):
        torch.testing.assert_close(scores, found[0] * (1.0 if step < 2 * PASSES else 0.5))


def test_a_fused_training_leaves_its_warm_up(seeded: None) -> None:
    """The head learns first, then the body; how long, a plain object counts."""
    networks = [WarmUp() for _ in range(3)]
    x = torch.randn(8, 3, 4)
    for backend in ("fused", "looped"):
        trained = fuse(copy.deepcopy(networks), backend, sample_shape=(4,)).train()
        moved = []
        for _ in range(3 * PASSES):
            trained.zero_grad()
            trained(x).square().sum().backward()
            moved.append(bool(trained.member_gradient(0)["body.weight"].any()))
        assert moved.index(True) == 2 * PASSES, backend


class WarmUp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.state = nn.Linear(4, 3), nn.Linear(3, 2), SimpleNamespace(steps=0)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.state.steps += 1
        seen = self.body(x).relu()
        scores: Tensor = self.head(seen.detach() if self.state.steps <= 2 * PASSES else seen)
        return scores

"""The proof at the door: what it finds, and how little memory it takes."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import fuse
from ddcnn.fusion.fuse import build
from ddcnn.fusion.proof import _SampleBySample, find_mismatch
from tests.fusion.helper import randomize

pytestmark = pytest.mark.usefixtures("seeded")


class _Times(nn.Module):
    """Equal to the loop but for one of its results."""

    def __init__(self, network: nn.Module, factor: float, *, of: str) -> None:
        super().__init__()
        self.network, self.factor, self.of = network, factor, of
        self.member_gradient, self.load_member_state = network.member_gradient, network.load_member_state

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x)
        if self.of == "scores":
            return self.factor * y
        if self.of == "evaluation":
            return y if self.training else self.factor * y
        return y + (self.factor - 1) * (y - y.detach())  # its gradient

    def member_state(self, n: int) -> dict[str, Tensor]:
        state = self.network.member_state(n)
        return {k: v * self.factor if self.of == k else v for k, v in state.items()}

    def __deepcopy__(self, memo: object) -> nn.Module:
        return _Times(copy.deepcopy(self.network), self.factor, of=self.of)


@pytest.mark.parametrize("of", ["scores", "evaluation", "gradient", "1.running_mean"])
def test_proof_finds(of: str) -> None:
    networks = [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
        for _ in range(3)
    ]
    looped, x = fuse(randomize(networks), "looped"), torch.randn(7, 3, 2, 4, 5)
    assert find_mismatch(_Times(looped, 1.0, of=of), looped, x) == ""
    assert find_mismatch(_Times(looped, 1.00001, of=of), looped, x).startswith("it differs from the loop by ")
    assert find_mismatch(_Times(looped, float("nan"), of=of), looped, x) == "it differs from the loop by inf, relative"


class _Live(torch.autograd.Function):
    """The identity; counts the graphs that are in memory."""

    now = most = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.token = _Token()
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Token:
    def __init__(self) -> None:
        _Live.now += 1
        _Live.most = max(_Live.most, _Live.now)

    def __del__(self) -> None:
        _Live.now -= 1


class _Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Live.apply(x))


def test_a_proof_holds_the_activations_of_one_reference_at_a_time() -> None:
    reference, candidate = (
        build([nn.Sequential(layer(), nn.Flatten(), nn.Linear(12, 2)) for _ in range(5)], "looped")
        for layer in (_Counted, nn.Identity)
    )
    _Live.most = 0
    assert find_mismatch(candidate, reference, torch.zeros(2, 5, 3, 2, 2)) == ""
    assert (_Live.most, _Live.now) == (1, 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("function", [F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d], ids=lambda f: f.__name__)
def test_sample_by_sample_is_the_same_convolution(function: Any, bias: bool) -> None:
    axes = int(function.__name__[-2])
    x, weight = torch.randn(3, 4, *(5,) * axes).double(), torch.randn(4, 2, *(3,) * axes).double()
    if "transpose" in function.__name__:
        weight = weight.transpose(0, 1).reshape(4, 2, *(3,) * axes)
    b = torch.randn(4).double() if bias else None
    sizes: list[int] = []

    class EpochSelector(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "convolution" in str(func):
                sizes.append(len(args[0]))
            return func(*args, **(kwargs or {}))

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, weight, b) if t is not None]
        y = function(*leaves, stride=2, padding=1, groups=2)
        return [y.detach(), *torch.autograd.grad((y * y).sum(), leaves)]

    expected = run()
    with EpochSelector(), _SampleBySample():  # type: ignore[no-untyped-call]
        found = run()
    assert sizes == [1] * 6  # three samples, forward and backward
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_large_networks_are_proved_sample_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    monkeypatch.setattr(_SampleBySample, "__enter__", lambda self: entered.append(1))
    monkeypatch.setattr(_SampleBySample, "__exit__", lambda *_: None)
    networks = build([nn.Sequential(nn.Flatten(), nn.Linear(2**18, 1)) for _ in range(2)], "looped")
    assert find_mismatch(networks, networks, torch.zeros(1, 2, 2**18)) == ""
    assert entered == [1]

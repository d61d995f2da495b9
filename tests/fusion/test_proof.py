"""The proof at the door: what it finds, and how little memory it takes."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion import fuse, fuses
from ddcnn.fusion.fuse import build
from ddcnn.fusion.loop import LoopBody
from ddcnn.fusion.operators import LAYERS
from ddcnn.fusion.proof import find_mismatch
from ddcnn.fusion.proof_modes import SampleBySample
from ddcnn.fusion.stacked import Stacked, lead
from tests.fusion.helper import randomize
from tests.fusion.networks import Logits, library

pytestmark = pytest.mark.usefixtures("seeded")


class _Times(LoopBody):
    """Equal to the loop but for one of its results."""

    def __init__(self, body: Any, factor: float, *, of: str) -> None:
        super().__init__(list(body.networks), channels_last=False)
        self.factor, self.of, self.ran = factor, of, False

    def forward(self, x: Tensor) -> Tensor:
        self.ran = True
        y = super().forward(x)
        if self.of == "scores":
            return self.factor * y
        if self.of == "evaluation":
            return y if self.training else self.factor * y
        return y + (self.factor - 1) * (y - y.detach())  # its gradient

    def member_state(self, n: int) -> dict[str, Tensor]:
        state = super().member_state(n)
        return {k: v * self.factor if self.ran and self.of == k else v for k, v in state.items()}


@pytest.mark.parametrize("of", ["scores", "evaluation", "gradient", "1.running_mean"])
def test_proof_finds(of: str) -> None:
    networks = [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
        for _ in range(3)
    ]
    looped = build(randomize(networks), "looped").body
    assert _mismatch(_Times(looped, 1.0, of=of), looped, (3, 2, 4, 5)) == ""
    assert _mismatch(_Times(looped, 1.00001, of=of), looped, (3, 2, 4, 5)).startswith("it differs from the loop by ")
    found = _mismatch(_Times(looped, float("nan"), of=of), looped, (3, 2, 4, 5))
    assert found == "it differs from the loop by inf, relative"


def _mismatch(candidate: Any, reference: Any, shape: tuple[int, ...]) -> str:
    return find_mismatch(candidate, reference.extract, shape, torch.device("cpu"))


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
    linear = [nn.Linear(12, 2) for _ in range(5)]
    reference, candidate = (
        build([nn.Sequential(layer(), nn.Flatten(), copy.deepcopy(one)) for one in linear], "looped").body
        for layer in (_Counted, nn.Identity)
    )
    _Live.most = 0
    assert _mismatch(candidate, reference, (5, 3, 2, 2)) == ""
    assert (_Live.most, _Live.now) == (1, 0)


class _Step(nn.Module):
    """Convolution, batch norm and ReLU, as inverted residuals and ResNeXt have them."""

    def __init__(self, before: int, width: int, kernel: int = 1, *, groups: int = 1, stride: int = 1) -> None:
        super().__init__()
        options: dict[str, Any] = {"padding": kernel // 2, "bias": False}
        self.conv = nn.Conv2d(before, width, kernel, stride, groups=groups, **options)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class _Bottleneck(nn.Module):
    """ResNeXt's, or with as many groups as channels MobileNetV2's and, shuffled, ShuffleNetV2's."""

    def __init__(self, width: int, groups: int, *, shuffled: bool = False) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            _Step(width, 2 * width), _Step(2 * width, 2 * width, 3, groups=groups), _Step(2 * width, width)
        )
        self.shuffled = shuffled

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.steps(x)
        return y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2) if self.shuffled else y


def _deep(groups: int, *, shuffled: bool = False, depth: int, last: nn.Module | None = None) -> nn.Module:
    """Return a network that turns 8x8 images into one pixel early, as those for 224x224 do."""
    stem = [_Step(3, 8, 3, stride=2), _Step(8, 8, 3, stride=2), _Step(8, 8, 3, stride=2)]
    blocks = [_Bottleneck(8, groups, shuffled=shuffled) for _ in range(depth)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*stem, *blocks, last or nn.Identity(), *end)


DEEP: dict[str, dict[str, Any]] = {
    "resnext": {"groups": 4, "depth": 64},
    "shufflenet-v2": {"groups": 16, "depth": 96, "shuffled": True},
}


@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=[] if n == "resnext" else pytest.mark.slow, id=n) for n, o in DEEP.items()]
)
def test_deep_networks_fuse_without_an_example(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm of three samples of one pixel amplifies rounding; so the proof must not be of three samples alone."""
    torch.manual_seed(0)
    networks = [_deep(**options) for _ in range(2)]
    fused = fuse(networks)
    assert (fused.backend, fused.reason) == ("fused", "it can be fused (no example to measure on)")
    monkeypatch.setattr("ddcnn.fusion.proof._SAMPLES", (3,))
    with pytest.raises(FusionError, match="cannot be compared with the loop, which itself changes by"):
        fuse(networks, "fused")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SEResNeXt-50", "EfficientNet-B0", "MobileNetV2"])
def test_public_networks_of_full_size_fuse_without_an_example(name: str) -> None:
    network = _public(name)
    fused = fuse([network, copy.deepcopy(network)])  # the proof gives them parameters of its own
    assert fused.backend == "fused", fused.reason


def _public(name: str) -> nn.Module:
    if name == "MobileNetV2":
        module = library("transformers")
        return Logits(module.MobileNetV2ForImageClassification(module.MobileNetV2Config(num_labels=5)))
    nets = library("monai.networks.nets")
    if name == "SEResNeXt-50":
        return nets.SEResNext50(spatial_dims=2, in_channels=3, num_classes=5)
    return nets.EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=5)


class _Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


WRONG: dict[str, Callable[[Stacked], Tensor]] = {
    "a little": lambda x: 2 * (1 + 1e-5) * x.apart(0),
    "much": lambda x: 3 * x.apart(0),
    "other network": lambda x: 2 * x.apart(0).roll(1, 0),
    "no gradient": lambda x: 2 * x.apart(0).detach(),
    "other sample": lambda x: 2 * x.apart(0).roll(1, 1),
    "nan": lambda x: x.apart(0) * float("nan"),
}


@pytest.mark.parametrize(
    ("wrong", "depth"),
    [*((wrong, 0) for wrong in WRONG), pytest.param("a little", 64, marks=pytest.mark.slow)],
)
def test_a_wrong_operator_is_found_where_the_loop_amplifies_rounding(wrong: str, depth: int) -> None:
    """Whether three samples tell it or more are needed: none passes, and what is said is that they differ."""
    try:
        fuses(_Scale)(lambda layer, x: lead(WRONG[wrong](x)))
        networks = [_deep(4, depth=depth, last=_Scale()) for _ in range(2)]
        with pytest.raises(FusionError, match=r"fused: it differs from the loop by (inf|[0-9.e+-]+), relative"):
            fuse(networks, "fused")
        fuses(_Scale)(lambda layer, x: lead(2 * x.apart(0)))
        assert fuse(networks, "fused").proved
    finally:
        del LAYERS[_Scale]


class _Chaos(nn.Module):
    """The logistic map, many times: no input of any size makes it well conditioned."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.sigmoid()
        for _ in range(100):
            x = 4 * x * (1 - x)
        return x


def test_a_network_that_is_chaotic_itself_runs_looped_and_the_reason_says_so() -> None:
    networks = [nn.Sequential(nn.Linear(6, 6), _Chaos(), nn.Linear(6, 2)) for _ in range(2)]
    expected = r"which itself changes by [0-9.e+-]+ if 48 samples \(6,\) change by 1e-12"
    try:
        fuses(_Chaos)(lambda layer, x: lead(torch.stack([layer.forward_of_one(part) for part in x.apart(0).unbind()])))
        _Chaos.forward_of_one = lambda self, x: _Chaos.forward(self, x * (1 + 1e-14))  # type: ignore[attr-defined]
        with pytest.raises(FusionError, match=expected):
            fuse(networks, "fused")
    finally:
        del LAYERS[_Chaos], _Chaos.forward_of_one  # type: ignore[attr-defined]


class _Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise LookupError("the user's own error")


def test_an_error_of_the_networks_themselves_is_theirs() -> None:
    with pytest.raises(LookupError, match=r"^the user's own error$"):
        fuse([nn.Sequential(nn.Linear(4, 2), _Fails()) for _ in range(2)], "fused", sample_shape=(4,))


def test_a_large_proof_is_announced(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [nn.Sequential(nn.Linear(500, 1000), nn.Linear(1000, 500)) for _ in range(2)]  # 1,001,500 parameters
    fuse(networks, "fused")
    assert caplog.messages == []
    monkeypatch.setattr("ddcnn.fusion.proof._ANNOUNCED", 40e6)
    fuse(networks, "fused")
    assert [message.partition(" of memory")[0] for message in caplog.messages] == [
        "to prove that 2 networks of 1 M parameters run fused as they would alone takes 45.8 MiB"
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is known on Linux")
@pytest.mark.parametrize(("members", "width"), [(2, 4000), (6, 2000)])
def test_the_proof_takes_at_most_eight_copies_of_the_parameters(members: int, width: int) -> None:
    """In a process of its own; peak of the resident memory (``VmHWM``) over that with the networks."""
    code = rf"""
import re, ddcnn, torch
from pathlib import Path
from torch import nn
def most(): return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
def make(): return nn.Sequential(nn.Linear(300, {width}), nn.ReLU(), nn.Linear({width}, {width}))
ddcnn.fuse([nn.Linear(3, 2) for _ in range(2)])
networks = [make() for _ in range({members})]
copy, before = sum(p.nbytes for n in networks for p in n.parameters()), most()
assert ddcnn.fuse(networks).backend == "fused"
print((most() - before) / copy)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 4 < float(ended.stdout) <= 8  # float64 parameters and gradients alone are four


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
    with EpochSelector(), SampleBySample():  # type: ignore[no-untyped-call]
        found = run()
    assert sizes == [1] * 6  # three samples, forward and backward
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_large_networks_are_proved_sample_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    monkeypatch.setattr(SampleBySample, "__enter__", lambda self: entered.append(1))
    monkeypatch.setattr(SampleBySample, "__exit__", lambda *_: None)
    networks = build([nn.Sequential(nn.Flatten(), nn.Linear(2**18, 1)) for _ in range(2)], "looped").body
    assert _mismatch(networks, networks, (2, 2**18)) == ""
    assert entered == [1]

"""`fuse` and `unfuse`: what comes back, what is refused, what falls back and why."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion import FusedCNN, fuse, unfuse
from ddcnn.fusion.choice import difference
from ddcnn.models import ResNet20
from tests.fusion.helper import randomize

pytestmark = pytest.mark.usefixtures("seeded")
BACKENDS = ["fused", "looped"]
BackendName = Literal["fused", "looped"]


def _networks(members: int = 3, *, dropout: float = 0.0) -> list[nn.Module]:
    return randomize(
        [
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(24, 3)
            )
            for _ in range(members)
        ]
    )


def _input(members: int = 3, *, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(7, members, 2, 4, 5, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unfuse_gives_back_the_same_networks(backend: BackendName) -> None:
    networks = randomize([ResNet20(2, 3, (4, 5), width=0.1) for _ in range(3)])
    for got, network in zip(unfuse(fuse(networks, backend=backend)), networks, strict=True):
        assert type(got) is ResNet20
        assert list(got.state_dict()) == list(network.state_dict())
        state = got.state_dict()
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_unfuse_keeps_precision(backend: BackendName) -> None:
    networks, x = _networks(), _input(dtype=torch.float64)
    fused = fuse(networks, backend=backend).double().eval()
    fused.load_member_state(1, {k: v.double() + 1e-12 for k, v in networks[1].state_dict().items()})
    state = fused.member_state(1)
    for name, value in unfuse(fused)[1].state_dict().items():
        assert torch.equal(value, state[name]), name
    torch.testing.assert_close(torch.stack([m(x[:, n]) for n, m in enumerate(unfuse(fused))], 1), fused(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_mode_is_kept(backend: BackendName, training: bool) -> None:
    fused = fuse([network.train(training) for network in _networks()], backend=backend)
    assert all(module.training is training for module in fused.modules())
    assert all(network.training is training for network in unfuse(fused))


@pytest.mark.parametrize("backend", BACKENDS)
def test_fusing_copies(backend: BackendName) -> None:
    networks, x = _networks(), _input()
    before = copy.deepcopy([network.state_dict() for network in networks])
    fused = fuse(networks, backend=backend, example=x)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    fused(x)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_member_states_are_views(backend: BackendName) -> None:
    networks = _networks()
    fused = fuse(networks, backend=backend)
    state = {name: value + 1 for name, value in networks[2].state_dict().items()}
    fused.load_member_state(1, state)
    for n, expected in enumerate([networks[0].state_dict(), state, networks[2].state_dict()]):
        assert all(torch.equal(value, expected[name]) for name, value in fused.member_state(n).items())
    fused.member_state(0)["0.weight"].zero_()
    assert not fused.member_state(0)["0.weight"].any()
    assert torch.equal(fused.member_state(2)["0.weight"], networks[2][0].weight)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_per_parameter(backend: BackendName) -> None:
    networks = _networks()
    fused = fuse(networks, backend=backend)
    with torch.no_grad():
        for parameter, values in fused.per_parameter(torch.tensor([1.0, 10.0, 100.0])):
            parameter.mul_(values)
    for n, network in enumerate(networks):
        state = fused.member_state(n)
        assert all(torch.equal(state[name], value * 10**n) for name, value in network.named_parameters())


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_are_independent(backend: BackendName) -> None:
    fused, x = fuse(_networks(), backend=backend).eval(), _input()
    twin = copy.deepcopy(fused)
    assert torch.equal(twin(x), fused(x))
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(twin(x), fused(x))
    assert (twin.backend, twin.reason, twin.members) == (fused.backend, fused.reason, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_double(backend: BackendName) -> None:
    networks, x = [network.eval() for network in _networks()], _input(dtype=torch.float64)
    expected = torch.stack([copy.deepcopy(network).double()(x[:, n]) for n, network in enumerate(networks)], 1)
    torch.testing.assert_close(fuse(networks, backend=backend).double().eval()(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast(backend: BackendName) -> None:
    networks, x = [network.eval() for network in _networks()], _input()
    expected = torch.stack([network(x[:, n]) for n, network in enumerate(networks)], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = fuse(networks, backend=backend).eval()(x)
    assert scores.dtype == torch.bfloat16
    torch.testing.assert_close(scores.float(), expected, rtol=0.1, atol=0.1)


def test_networks_are_independent() -> None:
    fused, x = fuse(_networks(), backend="fused"), _input().requires_grad_()
    (gradient,) = torch.autograd.grad(fused(x)[:, 1].square().sum(), x)
    assert gradient[:, 1].any()
    assert not gradient[:, [0, 2]].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(7, 3, 2, 4, 5), (7, 4, 1, 4, 5), (7, 1, 4, 4, 5)])
def test_input_for_another_number_of_networks(shape: tuple[int, ...], backend: BackendName) -> None:
    fused = fuse(_networks(2), backend=backend)
    with pytest.raises(FusionError) as error:
        fused(torch.zeros(shape))
    assert str(error.value) == f"2 networks take input (B, 2, C, *s), got {shape}"


# What is refused


def test_no_networks() -> None:
    with pytest.raises(FusionError, match=r"^fuse needs at least 1 network, got none$"):
        fuse([])


def test_a_network_twice() -> None:
    first, second = _networks(2)
    with pytest.raises(FusionError, match=r"^the 3 networks should be different objects, but one is there twice$"):
        fuse([first, second, first])


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(24, 4)),
        nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Flatten(), nn.Linear(24, 3)),
        nn.Sequential(nn.Conv2d(2, 4, 3, padding_mode="reflect"), nn.Flatten(), nn.Linear(24, 3)),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(24, 3)).double(),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Identity(), nn.Linear(24, 3)),
    ],
    ids=["width", "bias", "padding", "precision", "layer"],
)
def test_another_structure(other: nn.Module) -> None:
    networks = [nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(24, 3)) for _ in range(2)]
    with pytest.raises(FusionError) as error:
        fuse([*networks, other])
    assert str(error.value) == "network 2 has another structure than network 0; fuse networks of one structure"


# What falls back


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).flatten(1)


FALLBACKS = {
    "layer": (nn.GroupNorm(1, 2), "layer GroupNorm is not in the operator table"),
    "control-flow": (Branching(), "it cannot be traced (TraceError: symbolically traced variables cannot be used as"),
    "reshape": (nn.Flatten(2), "flatten from axis 2 to -1 is not in the operator table"),
    "parameter": (Scaled(), "0.scale (get_attr) is not in the operator table"),
}


@pytest.mark.parametrize(("layer", "reason"), FALLBACKS.values(), ids=FALLBACKS)
def test_fall_back(layer: nn.Module, reason: str) -> None:
    networks, x = [nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.Linear(40, 3)) for _ in range(3)], _input()
    fused = fuse(networks)
    assert fused.backend == "looped"
    assert fused.reason.startswith(reason)
    assert fused.reason.endswith(", so the networks run in turn")
    torch.testing.assert_close(fused(x), torch.stack([network(x[:, n]) for n, network in enumerate(networks)], 1))
    with pytest.raises(FusionError) as error:
        fuse(networks, backend="fused")
    assert str(error.value).startswith(f"this network cannot be fused: {reason}")
    assert str(error.value).endswith("; use backend='looped' or 'auto'")


def test_backend_as_asked() -> None:
    for backend in BACKENDS:
        fused = fuse(_networks(), backend=backend)
        assert (fused.backend, fused.reason) == (backend, "as asked")


def test_one_network() -> None:
    (network,) = _networks(1)
    assert fuse([network]).reason == "one network alone needs no fusing"
    assert fuse([network], backend="fused").backend == "fused"


def test_measured_choice() -> None:
    fused = fuse(_networks(), example=_input())
    other = {"fused": "looped", "looped": "fused"}[fused.backend]
    assert fused.reason.startswith("measured ")
    assert fused.reason.endswith(f"x as fast as {other} on (7, 3, 2, 4, 5)")


def test_dropout_does_not_prevent_fusing() -> None:
    assert fuse(_networks(dropout=0.5), backend="fused", example=_input()).backend == "fused"
    assert fuse(_networks(dropout=0.5), example=_input()).reason.startswith("measured ")


def test_proof_and_measurement_leave_the_random_state_alone() -> None:
    x, networks = _input(), _networks(dropout=0.5)
    before = torch.get_rng_state()
    fuse(networks, example=x)
    assert torch.equal(torch.get_rng_state(), before)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.flatten(2)


def test_difference() -> None:
    x = _input()
    assert difference(_Times(1.0), _Times(1.0), x) == 0
    assert difference(_Times(1.01), _Times(1.0), x) == pytest.approx(0.01)
    assert difference(_Times(float("nan")), _Times(1.0), x) == float("inf")


def test_example_does_not_fit() -> None:
    with pytest.raises((FusionError, RuntimeError)):
        fuse(_networks(), example=torch.zeros(7, 3, 5, 4, 5))


def test_fused_is_exported_state() -> None:
    fused = fuse(_networks(), backend="fused")
    assert isinstance(fused, FusedCNN)
    assert {value.shape[0] for value in fused.state_dict().values()} == {3}

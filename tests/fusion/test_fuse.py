"""`fuse` and `unfuse`: what comes back, what is refused, what falls back and why."""

from __future__ import annotations

import copy
import random
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion import FusedCNN, backend_choice, fuse, unfuse
from ddcnn.models import ResNet20
from tests.fusion.helper import assert_equal_to_separate, randomize

pytestmark = pytest.mark.usefixtures("seeded")
BACKENDS = ["fused", "vmapped", "looped"]
BackendName = Literal["fused", "vmapped", "looped"]


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
    assert scores.dtype == (torch.float32 if backend == "vmapped" else torch.bfloat16)  # vmap does not cast
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
    assert str(error.value).startswith("network 2 has another structure than network 0: ")
    assert str(error.value).endswith("; fuse equal networks")


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


class Chance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if torch.rand(()) < 0.5 else x


class PythonChance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if random.random() < 0.5 else 2 * x


class Hooked(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(lambda _layer, _inputs, output: 2 * output)


FALLBACKS = {
    "control-flow": (Branching(), "it reads numbers out of a tensor (bool)"),
    "chance": (Chance(), "it reads numbers out of a tensor (bool)"),
    "chance-of-python": (PythonChance(), "it draws random numbers in a way that cannot be compared"),
    "hook": (Hooked(), "a Hooked of it has hooks"),
}


@pytest.mark.parametrize(("layer", "reason"), FALLBACKS.values(), ids=FALLBACKS)
def test_fall_back(layer: nn.Module, reason: str) -> None:
    networks, x = [nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.Linear(40, 3)) for _ in range(3)], _input()
    fused = fuse(networks, example=x)
    assert fused.backend == "looped"
    assert f"these networks cannot be fused: {reason}" in fused.reason
    assert "these networks cannot be vmapped" in fused.reason
    assert "\n" not in fused.reason
    if "Chance" not in type(layer).__name__:
        torch.testing.assert_close(fused(x), torch.stack([network(x[:, n]) for n, network in enumerate(networks)], 1))
    with pytest.raises(FusionError) as error:
        fuse(networks, backend="fused", example=x)
    assert str(error.value).startswith(f"these networks cannot be fused: {reason}")
    assert str(error.value).endswith("; use backend='looped' or 'auto'")


def test_without_an_example_a_failing_proof_is_an_error_at_the_first_input() -> None:
    """Where no input can be made up: no layer tells how many channels there are."""
    fused = fuse([Branching() for _ in range(3)], backend="fused")
    for _ in range(2):
        with pytest.raises(FusionError, match=r"^these networks cannot be fused: it reads numbers out of a tensor"):
            fused(_input())


def test_parameters_are_stacked_as_they_are_used() -> None:
    networks = randomize([nn.Sequential(Scaled(), nn.GroupNorm(1, 40), nn.Linear(40, 3)) for _ in range(3)])
    fused = assert_equal_to_separate(networks, _input(dtype=torch.float64))
    assert fused.backend == "fused"


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x.flatten(1))}


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_networks_that_return_a_dictionary(backend: BackendName) -> None:
    expected = r"a local CNN should return one tensor of scores, \(B, K\), got dict; wrap it in a module that returns"
    with pytest.raises(FusionError, match=expected):
        fuse([Dictionary() for _ in range(3)], backend=backend)(_input())


def test_unknown_backend() -> None:
    with pytest.raises(FusionError, match=r"^backend = 'grouped' is unknown; use auto, fused, vmapped, looped$"):
        fuse(_networks(), "grouped")


def test_buffers_that_are_not_floats() -> None:
    class Table(nn.Module):
        def __init__(self, offset: int) -> None:
            super().__init__()
            self.register_buffer("order", torch.arange(40).roll(offset))
            self.linear = nn.Linear(40, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1)[:, self.order])

    networks = [Table(n) for n in range(3)]
    for backend in BACKENDS:
        fused = assert_equal_to_separate(networks, _input(dtype=torch.float64), backend=backend)
        assert fused.member_state(2)["order"].dtype == torch.int64


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
    others = {"fused", "vmapped", "looped"} - {fused.backend}
    assert fused.reason.startswith("measured ")
    assert all(f"x as fast as {other}" in fused.reason for other in others)


def test_the_choice_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    networks, x = _networks(), _input()
    reason = fuse(networks, example=x).reason
    monkeypatch.setattr(backend_choice, "measure", None)  # a measurement now would fail
    assert fuse(_networks(), example=x).reason == reason
    with pytest.raises(TypeError):
        fuse(_networks(2), example=_input(2))


def test_dropout_does_not_prevent_fusing() -> None:
    assert fuse(_networks(dropout=0.5), backend="fused", example=_input()).backend == "fused"
    assert fuse(_networks(dropout=0.5), example=_input()).reason.startswith("measured ")


def test_proof_and_measurement_leave_the_random_state_alone() -> None:
    x, networks = _input(), _networks(dropout=0.5)
    before = torch.get_rng_state()
    fuse(networks, example=x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(6, 3, 3, 8, 8, dtype=torch.uint8), r"cannot compute the example, \(6, 3, 3, 8, 8\), uint8: "),
        (torch.zeros(6, 3, 3, 8, 8, dtype=torch.float64), r"cannot compute the example, \(6, 3, 3, 8, 8\), float64: "),
        (torch.zeros(6, 4, 8, 8), r"3 networks take input \(B, 3, C, \*s\), got \(6, 4, 8, 8\)"),
    ],
)
def test_an_example_that_is_none_is_said_in_one_line(example: Tensor, message: str) -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)) for _ in range(3)]
    with pytest.raises(FusionError, match=message) as caught:
        fuse(networks, example=example)
    assert "\n" not in str(caught.value)


def test_example_does_not_fit() -> None:
    with pytest.raises((FusionError, RuntimeError)):
        fuse(_networks(), example=torch.zeros(7, 3, 5, 4, 5))


def test_fused_is_exported_state() -> None:
    fused = fuse(_networks(), backend="fused")
    assert isinstance(fused, FusedCNN)
    assert {value.shape[0] for value in fused.state_dict().values()} == {3}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("members", [1, 2])
def test_strided_1x1_convolutions_of_few_channels(members: int, backend: BackendName) -> None:
    """OneDNN destroys memory in their backward pass if channels lie last; it shows in images of 64 pixels and more."""
    networks = [
        nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for _ in range(members)
    ]
    x = torch.randn(2, members, 4, 90, 90)
    fused = fuse(networks, backend, example=x)
    for _ in range(4):
        fused(x).square().sum().backward()
    gradient = fused.member_gradient(0)["0.weight"].double()
    alone = copy.deepcopy(networks[0]).double()
    for _ in range(4):
        alone(x[:, 0].double()).square().sum().backward()
    torch.testing.assert_close(gradient, alone[0].weight.grad, rtol=1e-4, atol=1e-5)

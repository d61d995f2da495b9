"""One optimiser for all members against one of torch for each, on networks of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.fusion import Backend
from ddcnn.models import LocalCNNs
from ddcnn.training import CrossEntropy, MemberOptimizer, Single, Step
from tests.training.helper import GRID, MEMBERS, SIZE, batch_of, small_networks

pytestmark = pytest.mark.usefixtures("seeded")

SCHEDULE = (0.1, 0.7, 1.0, 1.0, 0.4, 0.2)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "momentum": 0.0},
    "nesterov": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
VALUES: dict[str, dict[str, Any]] = {
    "equal": {},
    "clipped": {"clip_norm": 0.3},
    "lr": {"subdomains": {0: {"lr": 0.3}, 2: {"lr": 1e-4}}},
    "weight_decay": {"subdomains": {0: {"weight_decay": 0.0}, 1: {"weight_decay": 0.4}}},
    "all": {
        "clip_norm": 0.3,
        "subdomains": {1: {"lr": 0.05, "weight_decay": 0.0}, 2: {"lr": 0.2, "weight_decay": 0.3}},
    },
}


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(9, 1, *SIZE, dtype=torch.float64), torch.randint(3, (9,))) for _ in SCHEDULE]


def torch_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return what a user of plain torch would write."""
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(network.parameters(), momentum=config.momentum, nesterov=nesterov, **options)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.optimizer](network.parameters(), **options)


def train_alone(
    network: nn.Module,
    config: TrainingConfig,
    n: int,
    data: Sequence[tuple[Tensor, Tensor]],
    factors: Sequence[float] = (1.0,) * len(SCHEDULE),
) -> None:
    (start, stop), optimizer = GRID.subdomains(SIZE)[n].box[1], torch_optimizer(network, config)
    for (images, labels), schedule, factor in zip(data, SCHEDULE, factors, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule * factor
        optimizer.zero_grad()
        F.cross_entropy(network(images[..., start:stop]), labels).backward()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()


def step_of(networks: list[nn.Module], config: TrainingConfig, backend: Backend) -> Step:
    members = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend)
    own = [config.of(n) for n in range(MEMBERS)]
    return Step(members, MemberOptimizer(members, config, own), "float32")


def assert_equal(step: Step, networks: Sequence[nn.Module]) -> None:
    for n, network in enumerate(networks):
        torch.testing.assert_close(step.network.member_state(n), dict(network.state_dict()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_member_is_optimised_as_if_alone(
    options: dict[str, Any], values: dict[str, Any], backend: Backend
) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1, **values)
    networks, data = small_networks(), batches()
    step = step_of(networks, config, backend)
    for (images, labels), schedule in zip(data, SCHEDULE, strict=True):
        step(batch_of(images, labels, step.network), schedule=schedule)
    for n, network in enumerate(networks):
        train_alone(network, config.of(n), n, data)
    assert_equal(step, networks)


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_rates_that_part_and_meet_again(options: dict[str, Any], backend: Backend) -> None:
    """The state carries over from the common step to the separate one and back."""
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1)
    networks, data = small_networks(), batches()
    factors = [(1.0, 1.0, 1.0)] * 2 + [(0.5, 1.0, 0.1)] * 2 + [(0.5, 0.5, 0.5)] * 2
    step = step_of(networks, config, backend)
    for (images, labels), schedule, now in zip(data, SCHEDULE, factors, strict=True):
        step.optimizer.scale(torch.tensor(now, dtype=torch.float64))
        step(batch_of(images, labels, step.network), schedule=schedule)
    for n, network in enumerate(networks):
        train_alone(network, config, n, data, [now[n] for now in factors])
    assert_equal(step, networks)


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("members", [[1], [2, 0]])
@pytest.mark.parametrize("values", ["equal", "all"])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_members_of_a_subset_go_on_as_if_alone(
    options: dict[str, Any], values: str, members: list[int], backend: Backend
) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1, **VALUES[values])
    networks, data = small_networks(), batches()
    step = step_of(networks, config, backend)
    for i, ((images, labels), schedule) in enumerate(zip(data, SCHEDULE, strict=True)):
        if i == 3:
            left = {n: copy.deepcopy(step.network.member_state(n)) for n in range(MEMBERS)}
            whole, step = step, step.subset(members)
        step(batch_of(images, labels, step.network), schedule=schedule)
    for n in members:
        train_alone(networks[n], config.of(n), n, data)
    assert_equal(step, [networks[n] for n in members])
    assert step.network.name(0) == whole.network.name(members[0])
    for n, state in left.items():  # who stayed behind does not change any more, bit for bit
        assert all(torch.equal(value, whole.network.member_state(n)[name]) for name, value in state.items())


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_state_of_a_member_is_that_of_its_own_optimiser(options: dict[str, Any], backend: Backend) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1)
    networks, data = small_networks(), batches()
    step = step_of(networks, config, backend)
    alone = [torch_optimizer(network, config) for network in networks]
    for images, labels in data[:3]:
        step(batch_of(images, labels, step.network))
        for network, optimizer, subdomain in zip(networks, alone, GRID.subdomains(SIZE), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(subdomain.cut(images)), labels).backward()
            optimizer.step()
    for n, state in enumerate(step.optimizer.states()):
        own = dict(networks[n].named_parameters())
        expected = {
            f"{name}/{what}": value
            for name, parameter in own.items()
            for what, value in alone[n].state[parameter].items()
            if value is not None
        }
        torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_states_go_from_one_form_to_the_other(options: dict[str, Any]) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1)
    networks, data = small_networks(), batches()
    fused = step_of(networks, config, "fused")
    for images, labels in data[:3]:
        fused(batch_of(images, labels))
    looped = step_of(networks, config, "looped")
    for n in range(MEMBERS):
        looped.network.load_member_state(n, fused.network.member_state(n))
    looped.optimizer.load_states(fused.optimizer.states())
    for images, labels in data[3:]:
        fused(batch_of(images, labels))
        looped(batch_of(images, labels))
    for n in range(MEMBERS):
        torch.testing.assert_close(looped.network.member_state(n), fused.network.member_state(n), rtol=1e-9, atol=1e-11)
    for mine, other in zip(looped.optimizer.states(), fused.optimizer.states(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_loaded_states_are_copies() -> None:
    config, data = TrainingConfig(optimizer="adam"), batches()
    first, second = (step_of(small_networks(), config, "looped") for _ in range(2))
    first(batch_of(*data[0]))
    second.optimizer.load_states(first.optimizer.states())
    before = copy.deepcopy(first.optimizer.states())
    second(batch_of(*data[1]))
    assert first.optimizer.states()[1].keys() == before[1].keys()
    assert all(torch.equal(value, first.optimizer.states()[1][key]) for key, value in before[1].items())


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("values", ["clipped", "all"])
def test_frozen_parameters_stay(values: str, backend: Backend) -> None:
    networks = small_networks()
    for network in networks:
        network[0].weight.requires_grad_(False)
    config = TrainingConfig(weight_decay=0.1, **VALUES[values])
    step = step_of(networks, config, backend)
    for images, labels in batches()[:2]:
        step(batch_of(images, labels, step.network))
    step = step.subset([0, 1])
    step(batch_of(*batches()[2], step.network))
    for n, network in enumerate(networks[:2]):
        assert torch.equal(step.network.member_state(n)["0.weight"], network[0].weight)
        assert not torch.equal(step.network.member_state(n)["5.weight"], network[5].weight)


def test_one_network_with_shared_parameters() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(44, 44), nn.Linear(44, 44)
            self.last.weight = self.first.weight
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.last(self.first(x.flatten(1)).relu())

    network, (images, labels) = Shared().double(), batches()[0]
    alone = copy.deepcopy(network)
    config = TrainingConfig(optimizer="adamw", lr=0.1, weight_decay=0.1, clip_norm=0.1)
    members = Single(network)
    step, optimizer = Step(members, MemberOptimizer(members, config), "float32"), torch_optimizer(alone, config)
    for _ in range(3):
        step(Batch(images, labels, torch.arange(9)))
        optimizer.zero_grad()
        F.cross_entropy(alone(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
        optimizer.step()
    torch.testing.assert_close(dict(network.state_dict()), dict(alone.state_dict()), rtol=1e-9, atol=1e-11)
    (state,) = step.optimizer.states()
    names = {"first.weight", "first.bias", "last.bias", "scale"}
    assert state.keys() == {f"{name}/{what}" for name in names for what in ("step", "exp_avg", "exp_avg_sq")}
    step.optimizer.load_states([state])
    assert step.subset([0]).network is members


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("rate", [0.1, 1e30])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_member_that_diverges_changes_no_bit_of_the_others(
    options: dict[str, Any], rate: float, backend: Backend
) -> None:
    """In float32, where another member's NaN, infinity or huge learning rate could round, overflow or spread."""
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1, clip_norm=0.5)
    data = [(images.float(), labels) for images, labels in batches()]
    networks = [network.float() for network in small_networks()]
    ill = copy.deepcopy(networks)
    if rate == config.lr:
        nn.init.constant_(ill[1][5].weight, math.nan)  # networks 0 and 1 are fused
    separately = config.model_copy(update={"weight_decay": 0.2})  # all members have their own values, or none
    own = None if rate == config.lr else [separately, config, config]
    own_ill = None if own is None else [separately, config.model_copy(update={"lr": rate}), config]
    found = []
    for modules, values in ((networks, own), (ill, own_ill)):
        members = LocalCNNs(GRID, modules, image_size=SIZE, backend=backend)
        step = Step(
            members, MemberOptimizer(members, config, values), "float32", CrossEntropy(class_weights=torch.ones(3))
        )
        for (images, labels), schedule in zip(data, SCHEDULE, strict=True):
            losses, _ = step(batch_of(images, labels, step.network), schedule=schedule)
        found.append((members, losses))
    (healthy, _), (disturbed, losses) = found
    assert not losses[1].isfinite() or rate > 1  # with BatchNorm, huge weights can give finite scores
    for n in (0, 2):
        for name, value in healthy.member_state(n).items():
            assert torch.equal(value, disturbed.member_state(n)[name]), (n, name)

"""The coherent model: its state and its optimiser's, subdomain by subdomain, against plain torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.aggregation import Dense
from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.fusion import Backend
from ddcnn.models import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.training import MemberOptimizer, Step, WholeNetwork
from tests.training.helper import GRID, MEMBERS, SIZE, small_networks

pytestmark = pytest.mark.usefixtures("seeded")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "momentum": 0.0},
    "nesterov": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}


class ByHand(nn.Module):
    """The same model, as a user of plain torch would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.locals = nn.ModuleList(small_networks())
        self.aggregation = Dense(MEMBERS, 3, hidden=(5,)).double()

    def forward(self, x: Tensor) -> Tensor:
        columns = [s.box[1] for s in GRID.subdomains(SIZE)]
        p = [net(x[..., a:b]).softmax(1) for net, (a, b) in zip(self.locals, columns, strict=True)]
        scores: Tensor = self.aggregation(torch.stack(p, 1))
        return scores


def optimizer_of(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=config.momentum, nesterov=config.momentum > 0, **options)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.optimizer](model.parameters(), **options)


class InDouble(CNNDNN):
    """Leaves probabilities in float64, so that rounding hides nothing."""

    def local_probabilities(self, images: Tensor) -> Tensor:
        scores: Tensor = self.local_cnns(self.cut(images))
        return scores.softmax(2)


def step_of(by_hand: ByHand, config: TrainingConfig, backend: Backend, indices: Sequence[int] = (0, 1, 2)) -> Step:
    modules = [by_hand.locals[n] for n in indices]
    local_cnns = LocalCNNs(GRID, modules, image_size=SIZE, indices=indices, backend=backend)
    network = WholeNetwork(InDouble(GRID, local_cnns, copy.deepcopy(by_hand.aggregation)))
    return Step(network, MemberOptimizer(network, config), "float32")


def batches() -> list[Batch]:
    images = (torch.randn(9, 1, *SIZE, dtype=torch.float64) for _ in range(6))
    return [Batch(x, torch.randint(3, (9,)), torch.arange(9)) for x in images]


def state_of(model: ByHand, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{what}": value
        for name, parameter in model.named_parameters()
        for what, value in optimizer.state[parameter].items()
        if value is not None
    }


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_state_and_optimiser_are_those_of_plain_torch(options: dict[str, Any], backend: Backend) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1)
    model = ByHand()
    step, optimizer = step_of(model, config, backend), optimizer_of(model, config)
    for batch in batches():
        step(batch)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()
    torch.testing.assert_close(step.network.member_state(0), dict(model.state_dict()), rtol=1e-9, atol=1e-11)
    (state,) = step.optimizer.states()
    torch.testing.assert_close(state, state_of(model, optimizer), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("parts", [[(0, 1), (2,)], [(1,), (2, 0)]], ids=["neighbours", "any"])
def test_a_state_goes_to_networks_of_parts_and_back(options: dict[str, Any], parts: list[tuple[int, ...]]) -> None:
    config = TrainingConfig(**options, lr=0.1, weight_decay=0.1)
    data, whole = batches(), step_of(ByHand(), config, "fused")
    for batch in data[:3]:
        whole(batch)
    networks, states = whole.network.member_state(0), whole.optimizer.states()[0]
    merged_networks: dict[str, Tensor] = {}
    merged_states: dict[str, Tensor] = {}
    for indices in parts:
        part = step_of(ByHand(), config, "fused", indices)
        part.network.load_member_state(0, networks)
        part.optimizer.load_states([states])
        found = part.network.member_state(0)
        names = {name for name in networks if name.startswith(("aggregation.", *(f"locals.{n}." for n in indices)))}
        assert found.keys() == names
        merged_networks |= found
        merged_states |= part.optimizer.states()[0]
    assert same_bits(merged_networks, networks)
    assert same_bits(merged_states, states)
    again = step_of(ByHand(), config, "looped")
    again.network.load_member_state(0, merged_networks)
    again.optimizer.load_states([merged_states])
    for batch in data[3:]:
        whole(batch)
        again(batch)
    torch.testing.assert_close(again.network.member_state(0), networks, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(again.optimizer.states(), whole.optimizer.states(), rtol=1e-9, atol=1e-11)


def test_states_are_views() -> None:
    step = step_of(ByHand(), TrainingConfig(optimizer="adam"), "fused")
    step(batches()[0])
    for state in (step.network.member_state(0), step.optimizer.states()[0]):
        for value in state.values():
            value.zero_()
    assert not any(p.any() for p in step.network.parameters())
    assert not any(value.any() for of in step.optimizer.inner.state.values() for value in of.values())

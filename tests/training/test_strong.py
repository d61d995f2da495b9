"""What the recipe "strong" is made of, against loops in plain torch, for members by themselves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import OTHERS, SHARES, Batch
from ddcnn.data.batches import Batches
from ddcnn.models import LocalCNNs
from ddcnn.training import CrossEntropy, MemberOptimizer, Single, Step, fit
from tests.training.helper import GRID, MEMBERS, SIZE, batch_of, small_networks

pytestmark = pytest.mark.usefixtures("seeded")
PLAIN: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02, "schedule": "constant", "select": "last"}


def _images() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(9, 1, *SIZE, dtype=torch.float64), torch.randint(3, (9,))) for _ in range(4)]


def _alone(network: nn.Module, n: int, images: Tensor) -> Tensor:
    return network(GRID.subdomains(SIZE)[n].cut(images))


def _check(local: LocalCNNs, alone: list[nn.Module]) -> None:
    for n, network in enumerate(alone):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(local.member_state(n)[name], value, rtol=1e-9, atol=1e-11, msg=f"{n} {name}")


def _step(local: LocalCNNs, **values: Any) -> Step:
    config = TrainingConfig(**(PLAIN | values))
    return Step(local, MemberOptimizer(local, config), "float32", radius=config.sam)


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_sharpness_of_each_member_by_itself(backend: str) -> None:
    networks = small_networks()
    local = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend).train()  # type: ignore[arg-type]
    step, data = _step(local, sam=0.3), _images()
    for images, labels in data:
        step(batch_of(images, labels, local))
    alone = [copy.deepcopy(network).train() for network in networks]
    for n, network in enumerate(alone):
        optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=0.02, nesterov=True)
        for images, labels in data:
            optimizer.zero_grad()
            F.cross_entropy(_alone(network, n, images), labels).backward()
            running = copy.deepcopy(dict(network.named_buffers()))
            norm = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()  # type: ignore[union-attr]
            here = [p.detach().clone() for p in network.parameters()]
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(p.grad / norm, alpha=0.3)
            optimizer.zero_grad()
            F.cross_entropy(_alone(network, n, images), labels).backward()
            with torch.no_grad():
                for p, old in zip(network.parameters(), here, strict=True):
                    p.copy_(old)
                for name, value in network.named_buffers():
                    value.copy_(running[name])
            optimizer.step()
    _check(local, alone)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_decay_of_weights_alone_and_rates_by_layer(backend: str, own: bool) -> None:
    networks = small_networks()
    values: dict[str, Any] = {"decay": "weights", "layer_decay": 0.3}
    if own:
        values["subdomains"] = {1: {"lr": 0.03, "weight_decay": 0.2}}
    config = TrainingConfig(**(PLAIN | values))
    local = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend).train()  # type: ignore[arg-type]
    configs = [config.of(n) for n in range(MEMBERS)]
    step, data = Step(local, MemberOptimizer(local, config, configs), "float32"), _images()
    for images, labels in data:
        step(batch_of(images, labels, local))
    alone = [copy.deepcopy(network).train() for network in networks]
    for n, network in enumerate(alone):
        rate, decay = configs[n].peak_lr, configs[n].weight_decay
        early = 0.3 * rate  # of the convolution and its norm; the last layer is linear
        groups = [
            {"params": [network[0].weight], "lr": early, "weight_decay": decay},  # type: ignore[index]
            {"params": [network[1].weight, network[1].bias], "lr": early, "weight_decay": 0.0},  # type: ignore[index]
            {"params": [network[5].weight], "lr": rate, "weight_decay": decay},  # type: ignore[index]
            {"params": [network[5].bias], "lr": rate, "weight_decay": 0.0},  # type: ignore[index]
        ]
        optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        for images, labels in data:
            optimizer.zero_grad()
            F.cross_entropy(_alone(network, n, images), labels).backward()
            optimizer.step()
    _check(local, alone)


def _plain_data() -> tuple[Batches, Batches]:
    images, labels = torch.randn(60, 1, 6, 5, dtype=torch.float64), torch.randint(3, (60,))
    return Batches(images, labels, torch.arange(45), 15, seed=5), Batches(images, labels, torch.arange(45, 60), 15)


def test_the_mean_of_the_weights_with_its_own_statistics_is_kept() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double()
    train, validation = _plain_data()
    raw = copy.deepcopy(network)
    fit(Single(network), train, validation, TrainingConfig(epochs=3, ema=0.7, **PLAIN), classes=3, stage="local")
    optimizer = torch.optim.SGD(raw.parameters(), 0.1, 0.9, weight_decay=0.02, nesterov=True)
    mean, steps = [p.detach().clone() for p in raw.parameters()], 0
    for epoch in (1, 2, 3):
        for batch in train.shuffled(epoch):
            assert isinstance(batch.inputs, Tensor)
            optimizer.zero_grad()
            F.cross_entropy(raw(batch.inputs), batch.targets).backward()
            optimizer.step()
            steps += 1
            share = min(0.7, (1 + steps) / (10 + steps))
            mean = [share * m + (1 - share) * p.detach() for m, p in zip(mean, raw.parameters(), strict=True)]
    with torch.no_grad():
        for p, m in zip(raw.parameters(), mean, strict=True):
            p.copy_(m)
        for batch in train.shuffled(3):
            raw(batch.inputs)
    for name, value in raw.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_early_layers_are_held_for_some_epochs() -> None:
    train, validation = _plain_data()
    for epochs, moves in ((2, False), (3, True)):
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double()
        before = copy.deepcopy(network.state_dict())
        config = TrainingConfig(epochs=epochs, freeze=2, **PLAIN)
        fit(Single(network), train, validation, config, classes=3, stage="local")
        after = network.state_dict()
        assert torch.equal(after["0.weight"], before["0.weight"]) != moves
        assert not torch.equal(after["3.weight"], before["3.weight"])


def test_mixed_targets_are_those_of_torch() -> None:
    scores, labels, others = torch.randn(7, 2, 4), torch.randint(4, (7,)), torch.randint(4, (7,))
    shares = torch.rand(7)
    batch = Batch(torch.zeros(7), labels, torch.arange(7), {OTHERS: others, SHARES: shares})
    soft = F.one_hot(labels, 4) * (1 - shares[:, None]) + F.one_hot(others, 4) * shares[:, None]
    expected = [F.cross_entropy(scores[:, m], soft, label_smoothing=0.1) for m in range(2)]
    torch.testing.assert_close(CrossEntropy(0.1)(scores, batch, 0.0).members, torch.stack(expected))


def test_a_member_without_any_loss_left_stops() -> None:
    images, labels = torch.eye(12).view(12, 1, 3, 4), torch.arange(12) % 3
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        network[1].weight.copy_(1000 * F.one_hot(labels, 3).T)
        network[1].bias.zero_()
    train, validation = Batches(images, labels, torch.arange(12), 12), Batches(images, labels, torch.arange(12), 12)
    history = fit(Single(network), train, validation, TrainingConfig(epochs=30, **PLAIN), classes=3, stage="local")
    assert [row["train_loss"] for row in history.rows] == [[0.0]] * 10

"""Networks, aggregations, decompositions and data of the user's own: what works, and what is wrong in one line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ddcnn
from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.decomposition import Decomposition, Grid
from tests.bars import write_bars

HERE = __name__


class Net(nn.Module):
    """What the networks here have in common."""

    def __init__(self, in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(in_channels, 4, 3, padding=1), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.first(x).relu().mean((2, 3)))
        return scores


class Float32(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class MadeUpFloat32(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.zeros(len(x), 4) @ self.last.weight.t()


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(1).mul_(3)
        return super().forward(x)


class ViewInTraining(Net):
    """In train mode, ``view`` needs the layout that images usually have."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x.view(len(x), 4, -1).mean(2) if self.training else x.mean((2, 3)))  # type: ignore[no-any-return]


def lazy(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(classes))


def frozen(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    return Net(in_channels, classes, image_size, width=width).requires_grad_(requires_grad=False)


_SHARED = nn.Conv2d(1, 4, 3, padding=1)


def shared(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    network = Net(in_channels, classes, image_size, width=width)
    network.first = _SHARED
    return network


def scripted(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    with warnings.catch_warnings(action="ignore"):  # it is deprecated
        found: nn.Module = torch.jit.trace(network, torch.zeros(2, in_channels, *image_size))
    return found


class AlwaysDropout(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.dropout(x))  # training=True, whatever the mode


class DropoutInTraining(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.dropout(x, training=self.training))


class Decides(nn.Module):
    """What the aggregations here have in common."""

    def __init__(self, subdomains: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(subdomains * classes, classes)

    def forward(self, p: Tensor) -> Tensor:
        scores: Tensor = self.linear(p.flatten(1))
        return scores


class Twice(Decides):
    def forward(self, p: Tensor) -> Tensor:
        return torch.cat([super().forward(p)] * 2, 1)


class OfEach(Decides):
    def forward(self, p: Tensor) -> Tensor:
        return p * self.linear.weight.mean()


class Named(Decides):
    def forward(self, p: Tensor) -> Tensor:
        return super().forward(p).argmax(1)


class Dice(Decides):
    def forward(self, p: Tensor) -> Tensor:
        scores = super().forward(p)
        return scores + torch.randn_like(scores)


class DiceInTraining(Dice):
    def forward(self, p: Tensor) -> Tensor:
        return super().forward(p) if self.training else Decides.forward(self, p)  # Dice's, and that without


class Fewer(Grid):
    """Says that there are four subdomains, and cuts two."""

    def subdomains(self, image_size: Sequence[int]) -> Any:
        return super().subdomains(image_size)[:2]


class Nothing(Grid):
    def __len__(self) -> int:
        return 0

    def subdomains(self, image_size: Sequence[int]) -> Any:
        return ()


def fewer() -> Decomposition:
    return Fewer((2, 2))


def nothing() -> Decomposition:
    return Nothing((2, 2))


def float_labels(_config: Any) -> Dataset:
    dataset = Dataset("floats", torch.zeros(24, 1, 8, 8), torch.arange(24) % 2, ("a", "b"))
    object.__setattr__(dataset, "labels", dataset.labels.float())  # past the types, which tests check and users do not
    return dataset


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {
        "data": {"source": write_bars(tmp_path, (8, 8))},
        "model": {"name": f"{HERE}:Net"},
        "training": {"epochs": 1, "batch_size": 20},
        "aggregation": {"epochs": 1},
        "compute": {"device": "cpu", "precision": "float32"},
        "out": tmp_path / "run",
    }


@pytest.mark.parametrize("name", ["DropoutInTraining", "Float32", "MadeUpFloat32", "InPlace", "ViewInTraining", "lazy"])
def test_networks_that_train_also_load_and_decide(name: str, values: dict[str, Any]) -> None:
    """Also where they cannot be compared in float64, so that nothing is proved of them: they run in turn."""
    values["model"] = {"name": f"{HERE}:{name}"}
    found = ddcnn.train(Config.parse(values))
    images = np.load(values["data"]["source"].removeprefix("npz:"))["images"]
    loaded = ddcnn.load(found.run, trust=True)
    as_they_are = ddcnn.load(found.run, trust=True, backend="looped")
    np.testing.assert_allclose(loaded.predict_proba(images), as_they_are.predict_proba(images), atol=1e-5)
    many = np.concatenate([images] * 4)  # what is worth being prepared for decisions alone
    np.testing.assert_allclose(loaded.predict_proba(many)[: len(images)], loaded.predict_proba(images), atol=1e-5)


def test_what_cannot_be_compared_cannot_be_asked_for(values: dict[str, Any]) -> None:
    values["model"] = {"name": f"{HERE}:Float32"}
    values["compute"]["backend"] = "fused"
    with pytest.raises(ddcnn.DdcnnError, match="it cannot be compared in float64"):
        ddcnn.train(Config.parse(values))


@pytest.mark.parametrize("backend", ["auto", "looped"])
@pytest.mark.parametrize(
    ("section", "name", "message"),
    [
        ("model", "frozen", "has no parameter that learns; one at least is needed"),
        ("model", "shared", "networks 0 and 1 share the parameter first.weight; give each its own"),
        ("model", "scripted", "is compiled by torch.jit; give the module itself"),
        ("model", "AlwaysDropout", "draws random numbers in eval mode"),
        ("aggregation", "Twice", r"should return scores \(B, K\) = \(2, 3\), got \(2, 6\) torch.float32"),
        ("aggregation", "OfEach", r"should return scores \(B, K\) = \(2, 3\), got \(2, 4, 3\) torch.float32"),
        ("aggregation", "Named", r"should return scores \(B, K\) = \(2, 3\), got \(2,\) torch.int64"),
        ("aggregation", "Dice", "draws random numbers in eval mode"),
        ("decomposition", "fewer", "cuts images into 2 subdomains, and says that there are 4"),
        ("decomposition", "nothing", "cuts images into 0 subdomains"),
        ("data", "float_labels", "labels should be whole numbers, got torch.float32; give labels.long()"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    section: str, name: str, message: str, backend: str, values: dict[str, Any]
) -> None:
    field = "source" if section == "data" else "name"
    values[section] = {**values.get(section, {}), field: f"{HERE}:{name}"}
    values["compute"]["backend"] = backend
    with pytest.raises(ddcnn.DdcnnError, match=message) as caught:
        ddcnn.train(Config.parse(values))
    assert "\n" not in str(caught.value)
    assert not values["out"].exists()


def test_an_aggregation_may_throw_dice_while_it_learns(values: dict[str, Any]) -> None:
    values["aggregation"]["name"] = f"{HERE}:DiceInTraining"
    found = ddcnn.train(Config.parse(values))
    images = np.load(values["data"]["source"].removeprefix("npz:"))["images"]
    network = found.networks["diceintraining"].eval()
    np.testing.assert_array_equal(network.predict_proba(images), network.predict_proba(images))


def test_a_group_that_is_asked_for_stays(values: dict[str, Any]) -> None:
    """Equal ``compute.group`` gives equal numbers, however many workers there are."""
    values["model"] = {"name": "resnet20", "width_factor": 0.1}
    values["compute"] |= {"group": 3, "engine": "processes", "workers": 2, "threads": 1}
    run = ddcnn.train(Config.parse(values)).run
    assert Config.read(run / "config.yaml").compute.group == 3

"""The composed CNN is the mean of its parts; the strategy trains them alone, and it from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ddcnn
from ddcnn.config import Config
from ddcnn.errors import ModelError
from ddcnn.models import build
from ddcnn.models.composition import check_composed, check_divides, composed
from ddcnn.strategies import check_strategies, run_strategies
from tests.bars import write_bars
from tests.fusion.helper import randomize
from tests.setups import context, decided

NETWORKS: list[tuple[str, tuple[int, ...], int]] = [
    ("vgg9", (18, 40), 2),
    ("resnet20", (12, 9), 4),
    ("resnet20", (6, 8, 7), 2),
    ("cnn3d", (16, 16, 16), 2),
]


@pytest.mark.parametrize(("name", "size", "parts"), NETWORKS)
def test_scores_are_the_mean_of_those_of_the_parts(name: str, size: tuple[int, ...], parts: int, seeded: None) -> None:
    modules = randomize([build(name, 3, 5, size, width=1 / parts, seed=n).double().eval() for n in range(parts)])
    whole = build(name, 3, 5, size).double().eval()
    whole.load_state_dict(composed([module.state_dict() for module in modules], whole.state_dict()))
    x = torch.randn(3, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([module(x) for module in modules]).mean(0)
        torch.testing.assert_close(whole(x), expected)
    assert float(expected.abs().max()) > 1e-3


def test_channels_that_do_not_divide_are_told() -> None:
    part, whole = (build("resnet20", 3, 5, (8, 8), width=width).state_dict() for width in (1 / 3, 1.0))
    with pytest.raises(ModelError, match=r"conv.weight has shape \(16, 3, 3, 3\) in the global CNN and \(5, 3, 3, 3\)"):
        check_divides(part, whole, 3)


def test_a_norm_over_all_channels_is_told(seeded: None) -> None:
    def network(channels: int) -> nn.Module:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))
        return nn.Sequential(nn.Conv2d(1, channels, 3), nn.GroupNorm(1, channels), nn.ReLU(), *head)

    parts, whole = [network(4), network(4)], network(8)
    whole.load_state_dict(composed([part.state_dict() for part in parts], whole.state_dict()))
    with pytest.raises(ModelError, match="is not the mean of its parts"):
        check_composed(parts, whole, (1, 6, 6))


def test_the_strategy(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "data": {"source": write_bars(tmp_path, (8, 12))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "strategy": "compose",
        "training": {"epochs": 3, "batch_size": 20, "lr": 0.05},
        "compute": {"device": "cpu", "precision": "float32"},
        "compose": {"epochs": 2},
    }
    setup = decided(values)
    check_strategies(["compose"], setup)
    found = run_strategies(["compose"], context(setup))["compose"]
    assert [stage.epochs for stage in found.stages] == [3, 2]
    assert len(found.network.decomposition) == 1
    out = tmp_path / "run"
    result = ddcnn.train(Config.parse(values | {"out": out}))
    network = ddcnn.load(out, trust=True)
    images = setup.data.dataset.images
    for name, value in network.local_cnns.member_state(0).items():
        assert torch.equal(value, found.network.local_cnns.member_state(0)[name])
    (row,) = result.results["strategies"]
    accuracy = float((network(images).argmax(1) == setup.data.dataset.labels)[setup.data.split.test].float().mean())
    assert row["test_accuracy"] == pytest.approx(accuracy)

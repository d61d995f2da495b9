"""Schedules against closed forms, and optimisers from a configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from ddcnn.config import TrainingConfig
from ddcnn.training.optimizers import build_optimizer, schedule_factor


def _factors(steps: int, **options: Any) -> list[float]:
    config = TrainingConfig(**options)
    return [schedule_factor(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize("steps", [5, 11, 200])
def test_onecycle(steps: int) -> None:
    factors = _factors(steps, schedule="onecycle", warmup=0.2)
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[-1] == pytest.approx(1e-4)
    for step, factor in enumerate(factors):
        at = step / (steps - 1)
        if at < 0.2:
            expected = 0.52 - 0.48 * math.cos(math.pi * at / 0.2)
        else:
            expected = 0.50005 + 0.49995 * math.cos(math.pi * (at - 0.2) / 0.8)
        assert factor == pytest.approx(expected)
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_onecycle_without_warmup_starts_at_the_peak() -> None:
    factors = _factors(9, schedule="onecycle", warmup=0.0)
    assert (factors[0], factors[-1]) == (1, pytest.approx(1e-4))


def test_cosine() -> None:
    factors = _factors(8, schedule="cosine")
    assert factors == pytest.approx([(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)])
    assert factors[0] == 1


def test_step() -> None:
    factors = _factors(8, schedule="step", milestones=(0.25, 0.75), gamma=0.5)
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_constant(schedule: str) -> None:
    assert _factors(4, schedule=schedule) == [1, 1, 1, 1]


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant", "plateau"])
def test_a_single_step_moves(schedule: str) -> None:
    assert 0 < _factors(1, schedule=schedule)[0] <= 1


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"optimizer": "sgd", "momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.0}, torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        ({"optimizer": "sgd", "nesterov": False}, torch.optim.SGD, {"nesterov": False}),
        ({"optimizer": "adam"}, torch.optim.Adam, {"weight_decay": 0.25}),
        ({"optimizer": "adamw"}, torch.optim.AdamW, {"weight_decay": 0.25}),
    ],
)
def test_optimizer(options: dict[str, Any], kind: type[torch.optim.Optimizer], expected: dict[str, Any]) -> None:
    config = TrainingConfig(**options, lr=0.3, weight_decay=0.25)
    optimizer = build_optimizer([[nn.Parameter(torch.zeros(2))]], config)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {"lr": 0.3, "weight_decay": 0.25, **expected}.items() <= group.items()

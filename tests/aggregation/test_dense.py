"""The dense network, as documented."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import nn

from ddcnn.aggregation import AGGREGATIONS, Dense, build_aggregation
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError

pytestmark = pytest.mark.usefixtures("seeded")
SHAPES = [(5, 1, 2), (5, 4, 2), (7, 6, 5)]
FEATURES: list[Literal["probability", "log"]] = ["probability", "log"]


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_layers_by_hand(shape: tuple[int, int, int], features: Literal["probability", "log"]) -> None:
    B, N, K = shape
    for shortcut in (True, False):
        dense = Dense(N, K, hidden=(8, 6), features=features, shortcut=shortcut)
        nn.init.normal_(dense.layers[-1].weight)
        p = torch.randn(B, N, K).softmax(2)
        logs = p.log() - p.log().mean(2, keepdim=True)
        x = (logs if features == "log" else p).reshape(B, N * K)
        a, b, c = (layer for layer in dense.layers if isinstance(layer, nn.Linear))
        y = torch.relu(x @ a.weight.T + a.bias)
        y = torch.relu(y @ b.weight.T + b.bias) @ c.weight.T + c.bias
        if dense.scale is not None:
            nn.init.constant_(dense.scale, 1.5)
        torch.testing.assert_close(dense(p), y + 1.5 * logs.sum(1) if shortcut else y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_with_shortcut_it_starts_as_a_product_of_experts(
    shape: tuple[int, int, int], features: Literal["probability", "log"]
) -> None:
    p = torch.randn(shape).softmax(2)
    scores = Dense(*shape[1:], features=features, shortcut=True)(p)
    product = p.prod(1)
    torch.testing.assert_close(scores.softmax(1), product / product.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (7,), (9, 7, 5)])
def test_number_of_parameters(hidden: tuple[int, ...]) -> None:
    widths = [4 * 3, *hidden, 3]
    expected = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in Dense(4, 3, hidden=hidden, shortcut=False).parameters()) == expected
    assert sum(p.numel() for p in Dense(4, 3, hidden=hidden, shortcut=True).parameters()) == expected + 1


@pytest.mark.parametrize("features", FEATURES)
def test_certain_members_give_finite_scores_and_gradients(features: Literal["probability", "log"]) -> None:
    p = torch.eye(3)[[0, 0, 1]].unsqueeze(0).requires_grad_()
    dense = Dense(3, 3, features=features)
    dense(p).sum().backward()
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("features", FEATURES)
def test_gradient_reaches_every_member(features: Literal["probability", "log"]) -> None:
    p = torch.randn(6, 4, 3).softmax(2).requires_grad_()
    dense = Dense(4, 3, hidden=(32,), features=features, shortcut=False)
    torch.nn.functional.cross_entropy(dense(p), torch.arange(6) % 3).backward()
    assert p.grad is not None
    assert p.grad.abs().sum((0, 2)).min() > 0
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in dense.parameters())


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_build(name: str) -> None:
    before = torch.get_rng_state()
    config = AggregationConfig(hidden=(8,), shortcut=False)
    first, again, other = (build_aggregation(name, 4, 3, config, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    p = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).softmax(2)
    assert torch.equal(first(p), again(p))
    assert torch.equal(first(p), other(p)) == (name not in ("dense", "attention"))


def test_unknown_name() -> None:
    with pytest.raises(AggregationError) as error:
        build_aggregation("averge", 4, 3, AggregationConfig())
    assert str(error.value).startswith("aggregation 'averge' is unknown: did you mean 'average'? (one of: ")

"""Weighted average, attention and gated mixture: against their formulas, and without some of the subdomains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.aggregation import AGGREGATIONS, Attention, Average, Gated, HandedOver, WeightedAverage, build_aggregation
from ddcnn.aggregation.absent import decide
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError

pytestmark = pytest.mark.usefixtures("seeded")
B, N, K = 6, 4, 3
WIDTHS = (5, 2, 7, 1)
FEATURES = ["probability", "log", "logit", "penultimate"]
LEARNED = ["weighted", "dense", "attention", "gated"]


def handed(features: str) -> Tensor:
    if features == "penultimate":
        h = torch.randn(B, N, max(WIDTHS))
        return h * torch.stack([torch.arange(max(WIDTHS)) < width for width in WIDTHS])
    scores = torch.randn(B, N, K)
    return scores if features == "logit" else scores.softmax(2)


def built(name: str, features: str, **options: Any) -> nn.Module:
    config = AggregationConfig(features=features, **options)  # type: ignore[arg-type]
    module = build_aggregation(name, N, K, config, widths=WIDTHS if features == "penultimate" else None)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def test_the_weighted_average_is_one() -> None:
    p = handed("probability")
    average = WeightedAverage(N, K)
    torch.testing.assert_close(average(p), Average()(p))  # at the start
    nn.init.normal_(average.logits)
    w = average.logits.exp() / average.logits.exp().sum(0)
    torch.testing.assert_close(average(p).exp(), torch.einsum("nk,bnk->bk", w, p))
    left = w[[0, 3]] / w[[0, 3]].sum(0)
    torch.testing.assert_close(decide(average, p, [1, 2]).exp(), torch.einsum("nk,bnk->bk", left, p[:, [0, 3]]))


@pytest.mark.parametrize("features", FEATURES)
def test_a_gated_mixture_is_one(features: str) -> None:
    h, module = handed(features), built("gated", features)
    assert isinstance(module, Gated)
    numbers = h
    if features == "log":
        numbers = h.log() - h.log().mean(2, keepdim=True)
    flat = torch.cat([numbers[:, n, :width] for n, width in enumerate(module.handed.widths)], 1)
    g = module.gate(flat).softmax(1)
    experts = h if features in ("probability", "log") else h.softmax(2)
    if features == "penultimate":
        layers = zip(module.classifiers, WIDTHS, strict=True)  # type: ignore[arg-type]
        experts = torch.stack([layer(h[:, n, :width]).softmax(1) for n, (layer, width) in enumerate(layers)], 1)
    torch.testing.assert_close(module(h).exp(), (g.unsqueeze(2) * experts).sum(1))
    silent = h.index_fill(1, torch.tensor([1, 2]), 1 / K if features in ("probability", "log") else 0.0)
    seen = module.handed.flat(module.handed.numbers_of(silent))
    g = module.gate(seen)[:, [0, 3]].softmax(1)
    torch.testing.assert_close(decide(module, h, [1, 2]).exp(), (g.unsqueeze(2) * experts[:, [0, 3]]).sum(1))


def test_a_gate_believes_all_equally_at_the_start() -> None:
    fresh, p = build_aggregation("gated", N, K, AggregationConfig()), handed("probability")
    torch.testing.assert_close(fresh(p), Average()(p))


def test_attention_against_the_layers_of_torch() -> None:
    h, module = (
        handed("logit"),
        built("attention", "logit", shortcut=False, options={"depth": 2, "width": 8, "heads": 2}),
    )
    assert isinstance(module, Attention)
    embedded = torch.stack([layer(h[:, n]) for n, layer in enumerate(module.embed)], 1) + module.position
    tokens = torch.cat([module.decision.expand(B, 1, 8), embedded], 1)
    left = tokens[:, [0, 1, 4]]  # without subdomains 1 and 2
    for block in module.blocks:
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        state = {
            "self_attn.in_proj_weight": block.project.weight,
            "self_attn.in_proj_bias": block.project.bias,
            "self_attn.out_proj.weight": block.out.weight,
            "self_attn.out_proj.bias": block.out.bias,
        }
        for name, part in {"linear1": block.dense[0], "linear2": block.dense[2]}.items():
            state |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        for i, norm in enumerate(block.norms, 1):
            state |= {f"norm{i}.weight": norm.weight, f"norm{i}.bias": norm.bias}
        layer.load_state_dict(state)
        tokens, left = layer.train()(tokens), layer(left)
    torch.testing.assert_close(module(h), module.head(tokens[:, 0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decide(module, h, [1, 2]), module.head(left[:, 0]), rtol=1e-4, atol=1e-5)


def test_attention_starts_as_a_product_of_experts() -> None:
    p = handed("probability")
    module = build_aggregation("attention", N, K, AggregationConfig()).eval()
    for missing in ((), (0, 2)):
        left = [n for n in range(N) if n not in missing]
        product = p[:, left].prod(1)
        found = decide(module, p, missing).softmax(1)
        torch.testing.assert_close(found, product / product.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", LEARNED)
def test_what_is_missing_plays_no_part(name: str, features: str) -> None:
    if features not in AGGREGATIONS.find(name).takes:
        return
    module, h = built(name, features), handed(features)
    other = h.clone()
    other[:, [1, 3]] = torch.nan
    found = decide(module, other, [1, 3])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, decide(module, h, [3, 1]))
    assert not torch.allclose(found, decide(module, h), atol=1e-3)
    h.requires_grad_()
    decide(module, h, [1, 3])[:, 1].sum().backward()
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()
    assert not h.grad[:, [1, 3]].any()
    assert h.grad[:, [0, 2]].any()


@pytest.mark.parametrize("name", LEARNED)
def test_subdomain_dropout_never_silences_all(name: str) -> None:
    module = built(name, "probability", subdomain_dropout=0.9).train()
    p = handed("probability").repeat(40, 1, 1)
    found = module(p)
    assert torch.isfinite(found).all()
    assert len({tuple(row) for row in found[::B].tolist()}) > 2
    assert torch.equal(module.eval()(p), module(p))


@pytest.mark.parametrize("name", ["dense", "attention", "gated"])
def test_zeros_that_fill_up_are_not_looked_at(name: str) -> None:
    module, h = built(name, "penultimate"), handed("penultimate")
    torch.testing.assert_close(module(h), module(h + 9 * (h == 0)))


def test_the_right_numbers_of_features_are_needed() -> None:
    with pytest.raises(AggregationError, match="features of 4 subdomains need as many widths, got 3"):
        HandedOver.of("penultimate", 4, 3, (1, 2, 3))
    with pytest.raises(AggregationError, match="width 10, 4 heads"):
        Attention(4, 3, width=10)
    with pytest.raises(AggregationError, match=r"'attention' cannot be built with options \{'layers': 2\}"):
        build_aggregation("attention", N, K, AggregationConfig(options={"layers": 2}))

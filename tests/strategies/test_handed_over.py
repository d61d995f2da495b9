"""Whole runs that decide from logits and features, under every aggregation: trained, saved, loaded, evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ddcnn
from ddcnn.aggregation import Calibrated
from ddcnn.config import Config
from ddcnn.errors import AggregationError, ConfigError, ModelError
from ddcnn.planning import prepare
from ddcnn.report import write_report
from ddcnn.training import sureness
from tests.bars import write_bars
from tests.setups import aggregate, decided, train_coherent, train_local

SUBDOMAINS, K, WIDTH = 4, 3, 4 * 5 * 7  # of the 4 channels of a tiny network; a grid 2x2 of 10 rows and 14 columns
LEARNED = ("weighted", "attention", "gated", "sklearn:LogisticRegression")


def values(folder: Path, **sections: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "data": {"source": write_bars(folder, (10, 14))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1, "batch_size": 20, "lr": 0.02},
        "aggregation": {"epochs": 2, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
        "out": folder / "run",
    }
    for name, section in sections.items():
        found[name] = found.get(name, {}) | section if isinstance(section, dict) else section
    return found


def headless(in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float) -> nn.Module:
    """Return a network without a linear layer."""
    return nn.Sequential(nn.Conv2d(in_channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ddcnn.Comparison]:
    """Return a comparison that decides from features, calibrated."""
    found = {}
    for name in ("dense", "attention"):
        folder = tmp_path_factory.mktemp(name)
        own = {"name": name, "features": "penultimate", "calibrate": True, "subdomain_dropout": 0.2}
        found[name] = ddcnn.compare(Config.parse(values(folder, aggregation=own)))
    return found


@pytest.mark.parametrize("name", ["dense", "attention"])
def test_a_comparison_of_features(compared: dict[str, ddcnn.Comparison], name: str) -> None:
    found = compared[name]
    own = ["attention"] if name == "attention" else []
    rows = {row["name"]: row for row in found.results["strategies"]}
    assert list(rows) == ["global", "average", "vote", "cnn-dnn", *own, "coherent", "transfer"]
    probabilities = {"features": "probability", "numbers": SUBDOMAINS * K}
    features = {"features": "penultimate", "numbers": SUBDOMAINS * WIDTH}
    for other in ("average", "vote"):
        assert rows[other]["handed_over"] == probabilities
    for other in ("cnn-dnn", *own, "coherent", "transfer"):
        assert rows[other]["handed_over"] == features
    page = write_report(found.run).read_text()
    assert f"penultimate ({SUBDOMAINS * WIDTH})" in page
    assert "How sure the decisions are" in page


@pytest.mark.parametrize("result", ["global", "average", "cnn-dnn", "attention", "coherent", "transfer"])
def test_a_loaded_network_decides_as_the_trained_one(compared: dict[str, ddcnn.Comparison], result: str) -> None:
    found = compared["attention"]
    row = next(row for row in found.results["strategies"] if row["name"] == result)
    again = ddcnn.evaluate(found.run, strategy=result, trust=True)
    assert again["accuracy"] == pytest.approx(row["test_accuracy"])
    for name, key in (("loss", "test_nll"), ("brier", "test_brier"), ("ece", "test_ece")):
        assert again[name] == pytest.approx(row[key], rel=1e-4, abs=1e-6)
    network, trained = ddcnn.load(found.run, result, trust=True), found.networks[result]
    images = ddcnn.open_data(Config.read(found.run / "config.yaml").data).images[:7]
    with torch.no_grad():
        torch.testing.assert_close(network(images), trained(images), rtol=1e-4, atol=1e-5)
    left = [] if result == "global" else [1, 2]
    if left:
        assert torch.isfinite(network.without(left)(images)).all()
    assert isinstance(network.aggregation, Calibrated)
    assert float(network.aggregation.final) != 1.0


def test_the_decision_is_calibrated_on_the_validation_images(compared: dict[str, ddcnn.Comparison]) -> None:
    found = compared["dense"]
    split = json.loads((found.run / "split.json").read_text())
    data = ddcnn.open_data(Config.read(found.run / "config.yaml").data)
    images, labels = data.images[split["validation"]], data.labels[split["validation"]]
    for name in ("cnn-dnn", "coherent", "transfer"):
        network = ddcnn.load(found.run, name, trust=True)
        with torch.no_grad():
            scores = network(images)
        nll = [sureness(scores * factor, labels)["nll"] for factor in (0.98, 1.0, 1.02)]
        assert nll[1] == min(nll)  # type: ignore[type-var]


@pytest.mark.parametrize("features", ["logit", "penultimate"])
@pytest.mark.parametrize("name", [*LEARNED, "dense"])
def test_every_aggregation_on_the_same_local_cnns(tmp_path: Path, name: str, features: str) -> None:
    own = {"name": name, "features": features if name != "weighted" else "probability", "aggregate_on": "holdout"}
    setup = decided(values(tmp_path, aggregation=own, decomposition={"grid": "2x3"}))  # of 4, 5 and 5 columns
    local = train_local(setup)
    result = aggregate(setup, local, name)
    network = result.network.eval()
    images = setup.data.dataset.images[setup.data.split.test]
    with torch.no_grad():
        handed = result.local_probabilities.handed("test", network.handed)
        torch.testing.assert_close(network.said(images).handed, handed)
        torch.testing.assert_close(network(images), network.decide(handed))
    if features == "penultimate" and name != "weighted":
        assert handed.shape[2] == 3 * 5 * 5
        assert network.handed is not None
        assert network.handed.widths == (3 * 5 * 5, 3 * 5 * 5, 3 * 5 * 4) * 2
    probabilities = sum(p.numel() for p in network.aggregation.parameters())
    assert probabilities
    if name.startswith("sklearn"):
        labels = setup.data.dataset.labels[local.samples]
        with torch.no_grad():
            seen = network(setup.data.dataset.images[local.samples]).argmax(1)
        assert float((seen == labels).float().mean()) > 0.9


@pytest.mark.parametrize("features", ["logit", "penultimate"])
def test_a_coherent_model_learns_through_what_is_handed_over(tmp_path: Path, features: str) -> None:
    own = {"features": features, "shortcut": False}
    setup = decided(values(tmp_path, aggregation=own, coherent={"local_weight": 0}))
    before = setup.networks.local_cnns(backend="fused")
    after = train_coherent(setup).network.local_cnns
    moved = {
        name: not torch.equal(value, after.member_state(0)[name]) for name, value in before.member_state(0).items()
    }
    assert moved["0.weight"]
    assert moved["4.weight"] == (features == "logit")  # behind the features nothing is learned without local losses


def test_what_cannot_be_used_is_found_before_the_training(tmp_path: Path) -> None:
    def found(**sections: Any) -> str:
        with pytest.raises((AggregationError, ConfigError, ModelError)) as error:
            prepare(Config.parse(values(tmp_path, **sections)))
        assert "\n" not in str(error.value)
        return str(error.value)

    model = {"name": "tests.strategies.test_handed_over:headless"}
    assert "has no linear layer that returns its scores" in found(model=model, aggregation={"features": "penultimate"})
    prepare(Config.parse(values(tmp_path, model=model, aggregation={"features": "logit"})))
    message = found(aggregation={"features": "penultimate", "aggregate_on": "crossfit"})
    assert "penultimate cannot go with aggregate_on = crossfit" in message
    message = found(aggregation={"name": "weighted", "features": "logit"})
    assert "aggregation weighted decides from probability, not from aggregation.features = logit" in message
    assert "cannot be saved as numbers" in found(aggregation={"name": "sklearn:KNeighborsClassifier"})
    assert "4 heads" in found(aggregation={"name": "attention", "options": {"width": 6}})

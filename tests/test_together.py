"""Shapes, a coarse level, features, a learned aggregation and temperatures at once: every part takes what others do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.errors import AggregationError
from ddcnn.report import write_report

CUTS = "voronoi:3,mask_channel=true"
OPTIONS = {"aggregation": {"name": "attention", "features": "penultimate", "calibrate": True, "epochs": 1}}


def _images(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 16), dtype=np.uint8)
    return images, np.arange(count) % 3


def _config(out: Path | None, **sections: object) -> Config:
    values = {
        "decomposition": {"name": CUTS, "coarse": "6x8"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1, "batch_size": 20},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": out,
        **OPTIONS,
        **sections,
    }
    return Config.parse(values)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ddcnn.compare(_config(tmp_path_factory.mktemp("together") / "run"), _images()).run


@pytest.mark.parametrize("strategy", ["attention", "cnn-dnn", "transfer"])
def test_a_loaded_network_decides_as_the_run_did(run: Path, strategy: str) -> None:
    images, labels = _images()
    network = ddcnn.load(run, strategy, trust=True)
    said = network.said(torch.from_numpy(images[:5, None]))
    assert said.probabilities.shape == (5, 4, 3)
    assert said.handed.shape[:2] == (5, 4)
    found = ddcnn.evaluate(run, data=(images, labels), strategy=strategy, trust=True)
    rows = json.loads((run / "comparison.json").read_text())["strategies"]
    (row,) = (row for row in rows if row["name"] == strategy)
    assert found["accuracy"] == pytest.approx(row["test_accuracy"])
    assert found["loss"] == pytest.approx(row["test_nll"], rel=1e-4)


def test_each_aggregation_has_a_training_of_its_own(run: Path) -> None:
    rows = (run / "metrics.jsonl").read_text()
    assert '"stage": "dnn"' in rows
    assert '"stage": "dnn/attention"' in rows


def test_a_pixel_outside_every_mask_but_the_coarse_one_explains_nothing(run: Path) -> None:
    pytest.importorskip("captum", reason="pip install 'ddcnn[explain]'")
    network = ddcnn.load(run, "attention", trust=True)
    images, _ = _images(2)
    found = network.explain(torch.from_numpy(images[:, None]))
    assert found.heat_map is not None
    assert found.heat_map.shape == (2, 12, 16)
    masked = network.local_cnns.subdomains[0]
    seen = network.cut(torch.from_numpy(images[:, None]))
    shown = network.local_cnns.seen_by(0, seen)
    assert shown.shape[1] == 2  # the image, and the mask
    assert masked.inside is not None
    assert torch.equal(shown[:, 1].bool(), masked.inside.expand_as(shown[:, 1]))
    assert not shown[:, 0][:, ~masked.inside].any()


def test_it_is_exported_with_any_batch(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "n.pt2"
    ddcnn.export(run, file, format="torch-export", strategy="attention", trust=True)
    images = torch.from_numpy(_images(7)[0][:, None])
    with torch.no_grad():
        expected = ddcnn.load(run, "attention", trust=True)(images)
    found = torch.export.load(file).module()(images)
    scores = found["scores"] if isinstance(found, dict) else found[0]
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


def test_it_is_reported(run: Path) -> None:
    page = write_report(run).read_text()
    assert "4 local CNNs" in page
    assert "attention" in page


def test_groups_of_a_data_set_are_kept() -> None:
    images, labels = _images(12)
    data = ddcnn.as_dataset(images, labels)
    groups = np.arange(12) // 2
    found = ddcnn.as_dataset(data, groups=groups, sample_weight=np.ones(12))
    assert found.groups is not None
    assert found.groups.tolist() == groups.tolist()
    assert found.weights is not None


def test_a_training_that_knows_no_weights_refuses_them(tmp_path: Path) -> None:
    images, labels = _images()
    data = ddcnn.as_dataset(images, labels, sample_weight=np.arange(60.0))
    with pytest.raises(AggregationError, match="without weights of samples or classes"):
        ddcnn.train(_config(tmp_path / "run", aggregation={"name": "sklearn:LogisticRegression"}), data)

"""A run that ended without some of its local CNNs: written, loaded, evaluated, reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.data import open_data
from ddcnn.errors import AggregationError, RunError
from ddcnn.experiments.record import Comparison, finish_run, open_run
from ddcnn.planning import Work, prepare
from ddcnn.report.html import render
from ddcnn.report.read import RunContent
from ddcnn.report.results import Results
from ddcnn.runs.folder import RunFolder
from ddcnn.strategies import LocalProbabilities
from ddcnn.strategies.local import LocalResult
from ddcnn.training import History, StageTimer
from tests.runs.edits import change, put
from tests.setups import aggregate, train_local

MISSING = (1, 4)


@pytest.fixture(scope="module")
def degraded(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Train 2x3 local CNNs and their DNN, and end the run as if two of them had failed."""
    path = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 150, (60, 8, 12)) + 100 * labels[:, None, None]
    np.savez(path / "d.npz", images=images.astype(np.uint8), labels=labels)
    values = {
        "data": {"source": f"npz:{path / 'd.npz'}"},
        "decomposition": {"grid": "2x3"},
        "model": {"name": "tests.strategies.tiny:tiny", "width_factor": 0.5},
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.02},
        "aggregation": {"epochs": 2, "hidden": 4},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": path / "run",
    }
    setup = prepare(Config.parse(values))
    local = replace(train_local(setup), missing=MISSING)
    results = {
        label: aggregate(setup, local, name)
        for label, name in (("average", "average"), ("vote", "vote"), ("cnn-dnn", "dense"))
    }
    assert setup.config.out is not None
    folder = RunFolder(setup.config.out)
    open_run(folder, setup, job="train", command="", choices={})
    return finish_run(folder, setup, results, trained=None, stages=[local.stage], choices={}, command="")


def test_a_missing_local_cnn_has_no_file_and_no_figures(degraded: Comparison) -> None:
    assert sorted(path.stem for path in (degraded.run / "locals").iterdir()) == ["0", "2", "3", "5"]
    results = json.loads((degraded.run / "comparison.json").read_text())
    assert [row.get("missing", False) for row in results["subdomains"]] == [n in MISSING for n in range(6)]
    for row, more in zip(results["subdomains"], results["details"]["subdomains"], strict=True):
        assert (row["test_accuracy"] is None) == (more["train_accuracy"] is None) == (row["index"] in MISSING)
        assert (more["class_accuracy"] == [None, None]) == (row["index"] in MISSING)


@pytest.mark.parametrize("name", ["average", "vote", "cnn-dnn"])
def test_it_decides_as_before_it_was_saved(degraded: Comparison, name: str) -> None:
    network = ddcnn.load(degraded.run, name, trust=True)
    assert network.missing == MISSING
    images = torch.arange(5 * 8 * 12).mul(7).remainder(256).to(torch.uint8).view(5, 1, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(images), degraded.networks[name].eval()(images), rtol=1e-4, atol=1e-5)
    found = ddcnn.evaluate(degraded.run, strategy=name, trust=True)
    row = next(row for row in degraded.results["strategies"] if row["name"] == name)
    assert found["accuracy"] == pytest.approx(row["test_accuracy"])
    assert [row["index"] for row in found["subdomains"] if row["accuracy"] is None] == list(MISSING)


def test_the_average_is_that_of_the_local_cnns_that_are_there(degraded: Comparison) -> None:
    network = ddcnn.load(degraded.run, "average", trust=True)
    images = open_data(Config.read(degraded.run / "config.yaml").data).images[torch.arange(9)]
    with torch.no_grad():
        left = network.local_probabilities(images)[:, [0, 2, 3, 5]]
        torch.testing.assert_close(network(images).exp(), left.mean(1))


def test_the_dnn_learned_from_those_that_are_there(
    degraded: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = []
    monkeypatch.setattr(Work, "fit", lambda work, _network, **_: inputs.append(work.train.inputs) or History())
    setup = prepare(Config.read(degraded.run / "config.yaml", {"out": tmp_path / "run"}))
    probabilities = LocalProbabilities(setup, degraded.networks["average"].local_cnns)
    stage = StageTimer("local", setup.compute.device)
    local = LocalResult(stage, History(), probabilities, setup.data.split.train, None, MISSING)
    assert aggregate(setup, local).network.missing == MISSING
    silent = (inputs[0] == 0.5).all(2).all(0)
    assert [n for n in range(6) if silent[n]] == list(MISSING)


def test_the_report_tells(degraded: Comparison) -> None:
    page = render(RunContent(Results.parse(degraded.results), (), "", {}, None, None))
    assert "The run has no local CNN for subdomains 1, 4: average, vote and CNN-DNN decide without them." in page
    assert page.count("<td>missing</td>") == 2


def _rewritten(degraded: Comparison, path: Path, missing: list[object]) -> Path:
    """Copy the run, with other subdomains marked as missing."""
    folder = RunFolder(path)
    folder.create(force=False)
    for file in degraded.run.rglob("*"):
        if file.is_file():
            (path / file.relative_to(degraded.run)).parent.mkdir(exist_ok=True)
            (path / file.relative_to(degraded.run)).write_bytes(file.read_bytes())
    results = folder.read_json("comparison.json") | {"subdomains": [{"index": n, "missing": True} for n in missing]}
    folder.write_json("comparison.json", results)
    folder.seal()
    return path


def test_a_file_that_is_not_said_to_be_missing_is_asked_for(degraded: Comparison, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"locals/1\.safetensors is not named in manifest\.json"):
        ddcnn.load(_rewritten(degraded, tmp_path / "run", [4, "1", None]), "vote", trust=True)


def test_all_missing(degraded: Comparison, tmp_path: Path) -> None:
    with pytest.raises(AggregationError, match="all 6 subdomains are missing"):
        ddcnn.load(_rewritten(degraded, tmp_path / "run", [*range(6)]), "vote", trust=True)


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("says", [True, False], ids=["says", "of an earlier commit"])
def test_a_default_of_another_version_changes_no_network(tmp_path: Path, *, calibrate: bool, says: bool) -> None:
    """Attention had two layers where nothing was said; a run that says keeps what it was built with, whatever it is."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=rng.integers(0, 256, (60, 8, 12), dtype=np.uint8), labels=np.arange(60) % 3)
    config = Config.parse(
        {
            "strategy": "local",
            "data": {"source": f"npz:{tmp_path / 'd.npz'}"},
            "model": {"name": "tests.strategies.tiny:tiny"},
            "training": {"epochs": 1, "batch_size": 16, "lr": 0.02},
            "aggregation": {"name": "attention", "epochs": 1, "options": {"depth": 2}, "calibrate": calibrate},
            "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
            "out": tmp_path / "run",
        }
    )
    trained = ddcnn.train(config)
    change(RunFolder(trained.run), "config.yaml", put("aggregation", "options", {}))
    if not says:
        change(RunFolder(trained.run), "networks.json", lambda values: values["attention"].pop("options") and values)
    images = torch.arange(5 * 8 * 12).mul(7).remainder(256).to(torch.uint8).view(5, 1, 8, 12)
    with torch.no_grad():
        found, expected = (
            network(images)
            for network in (ddcnn.load(trained.run, "attention", trust=True), trained.networks["attention"].eval())
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

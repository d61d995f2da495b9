import json

import numpy as np
import pytest
from scipy import stats

import ddcnn
from ddcnn.config import DataConfig
from ddcnn.data import Dataset, make_split, open_data
from ddcnn.errors import ConfigError, DataError, RunError
from ddcnn.experiments.folds import combined, interval
from ddcnn.report import write_report


@pytest.fixture(scope="module")
def compared(source, tmp_path_factory):
    config = ddcnn.Config.parse(
        {
            "data": {"source": source, "folds": "2x2"},
            "training": {"epochs": 1, "batch_size": 16, "lr": 0.02},
            "aggregation": {"epochs": 1, "batch_size": 16, "hidden": 8},
            "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
            "model": {"name": "resnet20", "width_factor": 0.25},
            "decomposition": {"grid": "1x2"},
            "out": tmp_path_factory.mktemp("runs") / "folds",
        }
    )
    return ddcnn.compare(config, command="ddcnn compare --folds 2x2")


def test_means_are_those_of_the_folds(compared):
    single = [json.loads((compared.run / f"folds/{n}/comparison.json").read_text()) for n in range(4)]
    assert len(list((compared.run / "folds").iterdir())) == 4
    for i, row in enumerate(compared.results["strategies"]):
        for name in ("test_accuracy", "test_auc", "test_f1"):
            values = [one["strategies"][i][name] for one in single]
            assert row["folds"][name] == values
            assert row[name] == pytest.approx(np.mean(values))
            low, high = row["intervals"][name]
            assert 0 <= low <= row[name] <= high <= 1
    one = [fold["details"]["missing"]["transfer"]["one"] for fold in single]
    assert compared.results["details"]["missing"]["transfer"]["one"] == pytest.approx(np.mean(one, axis=0))
    counts = np.array(compared.results["details"]["confusion"]["global"])
    assert counts.sum() == 2 * 90  # every image is tested once per repeat
    assert compared.results["details"]["class_figures"]["global"]["samples"] == counts.sum(1).tolist()
    assert compared.results["details"]["mistakes"] is None
    assert compared.results["details"]["samples"] == {"test": 90}
    assert compared.results["details"]["folds"] == [2, 2]


def test_every_sample_is_tested_once_per_repeat(compared):
    splits = [json.loads((compared.run / f"folds/{n}/split.json").read_text()) for n in range(4)]
    for repeat in (splits[:2], splits[2:]):
        assert sorted(i for split in repeat for i in split["test"]) == list(range(90))
    assert splits[0]["test"] != splits[2]["test"]
    for split in splits:
        assert sorted(i for part in split.values() for i in part) == list(range(90))


def test_a_fold_is_a_complete_run_and_can_be_repeated(compared, tmp_path):
    config = ddcnn.Config.read(compared.run / "folds/1/config.yaml", {"out": tmp_path / "again"})
    assert config.data.fold == 1
    again = ddcnn.compare(config)
    first = json.loads((compared.run / "folds/1/comparison.json").read_text())
    accuracies = [[row["test_accuracy"] for row in one["strategies"]] for one in (first, again.results)]
    assert accuracies[0] == accuracies[1]


def test_the_report_tells_of_the_folds(compared):
    page = write_report(compared.run).read_text()
    assert "the mean over 4 folds (2 folds, 2 times)" in page
    assert "Nadeau and Bengio" in page
    assert " ± " in page
    with pytest.raises(RunError, match=r"compares folds; give one of them, such as .*folds.0"):
        ddcnn.load(compared.run)


def test_the_interval_is_the_corrected_one():
    """By hand, and narrower for independent samples: without common training samples, it is scipy's t-interval."""
    values = [0.81, 0.77, 0.79, 0.84, 0.8]
    low, high = interval(values, 0.25)
    half = stats.t.ppf(0.975, 4) * np.sqrt((1 / 5 + 1 / 4) * np.var(values, ddof=1))
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    plain = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values, 0.0) == pytest.approx(plain)
    assert interval([0.5], 0.25) is None
    assert interval([0.99, 1.0, 0.9], 1.0)[1] == 1.0


def test_what_is_undefined_in_a_fold_has_no_mean():
    row = {"name": "global", "test_accuracy": 0.5, "test_auc": 0.6, "test_f1": 0.5, "peak_memory_bytes": None}
    details = {
        "samples": {"train": 8, "test": 2},
        "confusion": {"global": [[1, 0], [0, 1]]},
        "stages": [],
        "subdomains": [],
    }
    results = [
        {"strategies": [row | {"test_auc": value}], "subdomains": [], "details": details} for value in (0.6, None)
    ]
    together = combined(results, [2, 1])["strategies"][0]
    assert together["test_auc"] is None
    assert "test_auc" not in together["intervals"]
    assert together["test_accuracy"] == 0.5


def _dataset(source) -> Dataset:
    return open_data(DataConfig(source=source))


def test_folds_are_stratified_and_take_the_place_of_official_parts(source):
    dataset = _dataset(source)
    for fold in range(5):
        split = make_split(dataset, DataConfig(folds=(5, 1), fold=fold, validation=0.25, limit_train=30), seed=1)
        assert np.bincount(dataset.labels[split.test]).tolist() == [6, 6, 6]
        assert (len(split.train), len(split.validation)) == (30, 18)


def test_what_cannot_be_folded(source, make_config, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.folds = 1 should be the number of folds, at least 2"):
        make_config(data={"folds": "1"})
    with pytest.raises(ConfigError, match=r"data\.fold = 4 should be below 4"):
        make_config(data={"folds": "2x2", "fold": 4})
    with pytest.raises(DataError, match="class '0' has 30 images, at least 40 are needed for 40 folds"):
        ddcnn.compare(make_config(data={"folds": "40"}))
    with pytest.raises(ConfigError, match=r"train trains one fold: give data\.fold"):
        ddcnn.train(make_config(data={"folds": "3"}))
    assert not (tmp_path / "run").exists()

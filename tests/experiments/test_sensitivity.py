"""`sensitivity`: importances, the best of n, and a choice that sees no test image."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddcnn
from ddcnn.config import Config
from ddcnn.config.values import merge
from ddcnn.errors import ConfigError
from ddcnn.experiments.questions import EXPERIMENTS, sensitivity
from ddcnn.experiments.questions.importances import best_of, importances
from ddcnn.planning import prepare
from tests.bars import write_bars


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {
        "data": {"source": write_bars(tmp_path, (8, 8))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": [1, 2]},
        "training": {"epochs": 1, "batch_size": 16, "lr": 0.04},
        "aggregation": {"epochs": 1},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }


@pytest.mark.parametrize("decisive", ["rate", "depth"])
def test_the_only_parameter_that_matters_is_found(decisive: str) -> None:
    """A figure that is a function of one parameter: its share is all there is, and clearly more than chance."""
    pytest.importorskip("optuna", reason="pip install 'ddcnn[experiments]'")
    rng = np.random.default_rng(1)
    trials = [{"rate": 10.0 ** rng.uniform(-3, 0), "depth": int(rng.integers(1, 4)), "same": 7} for _ in range(32)]
    found = importances(trials, [np.log(trial[decisive]) for trial in trials], repeats=10)
    assert next(iter(found)) == decisive
    assert found.keys() == {"rate", "depth"}
    other = next(one for name, one in found.items() if name != decisive)
    assert found[decisive].share > 0.9 > found[decisive].chance
    assert found[decisive].low > 0.8
    assert other.share < 0.1


def test_figures_without_a_cause_are_not_told_from_chance() -> None:
    pytest.importorskip("optuna", reason="pip install 'ddcnn[experiments]'")
    rng = np.random.default_rng(0)
    trials = [{"a": float(rng.uniform(1, 2)), "b": float(rng.uniform(1, 2))} for _ in range(16)]
    assert all(one.share < one.chance for one in importances(trials, rng.normal(size=16).tolist(), repeats=20).values())
    assert all(one == (0, 0, 0, 0) for one in importances(trials, [0.5] * 16, repeats=2).values())
    assert importances(trials[:3], [0.1, 0.2, 0.3]) == {}


def test_the_best_of_n_is_the_mean_over_all_draws() -> None:
    values = [0.3, 0.9, 0.5, 0.5, 0.1]
    for n, mean, low, high in best_of(values):
        draws = [max(drawn) for drawn in itertools.combinations(values, int(n))]
        assert mean == pytest.approx(np.mean(draws))
        assert np.mean(np.less_equal(draws, low)) >= 0.025
        assert np.mean(np.less_equal(draws, high)) >= 0.975
        assert (low, high) == (min(draws), max(draws))  # of so few draws, 95 % are all of them


def test_trials_fill_the_space(values: dict[str, Any]) -> None:
    given, *found = sensitivity.variants(prepare(ddcnn.Config.parse(values)))
    assert given.values == {"strategy": "transfer"}
    trials = [ddcnn.Config.parse(merge(values, variant.values)) for variant in found]
    assert len(trials) == sensitivity.TRIALS
    for low, high, seen in (
        (0.04 / 16, 0.04 * 4, [trial.training.lr for trial in trials]),
        (4, 64, [trial.training.batch_size for trial in trials]),
        (16, 512, [trial.aggregation.hidden[0] for trial in trials]),
    ):
        assert low <= min(seen)
        assert max(seen) <= high
        halves = np.histogram(np.log(seen), bins=4, range=(np.log(low), np.log(high) + 1e-9))[0]
        assert halves.min() >= 6  # of 8, but for rounding
    depths = np.bincount([len(trial.aggregation.hidden) for trial in trials], minlength=4)
    assert depths[0] == 0
    assert depths[1:].min() >= 10


def test_the_choice_is_made_on_validation_images_alone(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="pip install 'ddcnn[experiments]'")
    monkeypatch.setattr(sensitivity, "REPEATS", 3)
    names = ["given", *(f"trial-{n:02}" for n in range(4))]
    found = ddcnn.experiment("sensitivity", values, seeds=1, variants=names, out=tmp_path / "e").summary
    cells = [json.loads(line) for line in (tmp_path / "e" / "cells.jsonl").read_text().splitlines()]
    rows = {label: row for cell in cells for label, row in cell["arms"].items()}
    assert [arm["name"] for arm in found["arms"]] == [
        f"{result}, {what}" for what in ("as configured", "best of the search") for result in ("CNN-DNN", "transfer")
    ]
    for arm in found["arms"][2:]:
        trials = [row for label, row in rows.items() if label.startswith(arm["name"].split(",")[0] + ", trial")]
        best = max(trials, key=lambda row: row["validation_accuracy"])
        assert arm["values"] == [best["test_accuracy"]]
    shown = json.dumps(found["tables"])
    assert "CNN-DNN: learning rate" in shown
    assert "trial 0" in shown
    assert [len(line) for line in found["curves"][0]["lines"].values()] == [4, 4]
    assert ddcnn.experiment("sensitivity", values, seeds=1, variants=names, out=tmp_path / "e").summary == found


def test_a_higher_test_accuracy_is_no_reason_to_choose_a_trial() -> None:
    arms = {
        "CNN-DNN, trial 00": [{"validation_accuracy": 0.9, "test_accuracy": 0.1}],
        "CNN-DNN, trial 01": [{"validation_accuracy": 0.8, "test_accuracy": 1.0}],
    }
    assert sensitivity.chosen(arms) == {"CNN-DNN, best of the search": arms["CNN-DNN, trial 00"]}


def test_without_optuna_nothing_is_trained(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddcnn.experiments.questions.question.find_spec", lambda _name: None)
    with pytest.raises(
        ConfigError, match=r"^experiment sensitivity needs the package optuna: pip install 'ddcnn\[experiments\]'$"
    ):
        ddcnn.experiment("sensitivity", values, out=tmp_path / "e")
    assert not (tmp_path / "e").exists()
    assert EXPERIMENTS["timing"].check("timing", Config()) is None

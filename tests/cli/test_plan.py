"""`plan`, `--dry-run`, `--time-limit`: what is printed, what is refused, and that nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import ddcnn
from ddcnn.experiments.verification import verify
from ddcnn.training import Progress
from tests.bars import write_bars


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    return [
        "--data", write_bars(tmp_path, (8, 8)), "--model", "tests.strategies.tiny:tiny", "--batch-size", "20",
        "--lr", "0.05", "--device", "cpu", "--precision", "float32", "--backend", "looped", "--patience", "9",
        "--set", "aggregation={epochs: 1, hidden: [4]}",
    ]  # fmt: skip


def test_a_table_without_times(call: Callable, small: list[str], tmp_path: Path) -> None:
    code, out, _ = call("plan", *small, "--no-measure")
    assert code == 0
    for word in (
        "global CNN",
        "local CNNs",
        "DNN",
        "coherent",
        "transfer",
        "1,635",
        "coherent 960 bytes a step",
        "local CNNs: nothing",
    ):
        assert word in out
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_what_says_where_a_run_goes_is_taken_and_not_shown(call: Callable, small: list[str], tmp_path: Path) -> None:
    words = ("--out", tmp_path / "r", "--force", "--track", "mlflow")
    assert call("plan", *small, "--no-measure", *words).code == 0
    assert not (tmp_path / "r").exists()
    options = call("plan", "--help").out.partition("Options")[2]
    assert not [word for word in words if str(word).startswith("--") and f"│ {word} " in options]


def test_a_dry_run_is_the_plan(call: Callable, small: list[str], tmp_path: Path) -> None:
    plans = [
        json.loads(call(*command, *small, "--epochs", "2", "--json").out)
        for command in (
            ("plan", "--strategy", "local", "--no-measure"),
            ("train", "--dry-run", "--out", tmp_path / "r"),
        )
    ]
    counted = [[(stage["name"], stage["steps"], stage["operations"]) for stage in plan["stages"]] for plan in plans]
    assert counted[0] == counted[1]
    assert [name for name, *_ in counted[0]] == ["local", "dnn"]
    assert plans[1]["seconds"] > 0
    assert plans[1]["peak"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_a_plan_is_verified(call: Callable, small: list[str], tmp_path: Path) -> None:
    code, out, _ = call("plan", *small, "--strategy", "coherent", "--verify", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)["verified"]}
    assert list(rows) == ["coherent", "evaluation"]
    assert all(row["predicted_seconds"] > 0 and row["measured_seconds"] > 0 for row in rows.values())
    assert 0.5 < rows["coherent"]["predicted_peak"] / rows["coherent"]["measured_peak"] < 2
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_one_epoch_is_verified_of_stages_with_epochs_of_their_own(small: list[str]) -> None:
    counted: dict[str, int] = {}

    class Counting(Progress):
        def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
            counted[stage] = epochs

    values = {
        "data": {"source": small[1]},
        "model": {"name": small[3]},
        "strategy": "transfer",
        "init": {"name": "shared", "epochs": 6},
        "transfer": {"epochs": 4},
        "aggregation": {"epochs": 5},
    }
    verify(ddcnn.Config.parse(values), job="train", progress=Counting())
    assert counted == {"init/shared": 1, "local": 1, "dnn": 1, "transfer": 1}


def test_a_strategy_that_is_set_is_planned_alone(call: Callable, small: list[str]) -> None:
    code, out, _ = call("plan", *small, "--set", "strategy =coherent", "--no-measure", "--json")
    assert code == 0
    assert [stage["name"] for stage in json.loads(out)["stages"]] == ["coherent"]


def test_times_that_cannot_be_used_are_one_line(refused: Callable, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "should be a time, such as 90s, 30m or 2h" in refused("train", *small, "--time-limit", "soon", "--quiet")
    assert "leave out --epochs" in refused("compare", *small, "--time-limit", "1h", "--epochs", "3")
    assert "leave out --epochs" in refused("train", *small, "--time-limit", "1h", "--set", "training.epochs = 3")
    assert "leave out --epochs" in refused("train", *small, "--time-limit", "1h", "--set", "training={epochs: 3}")
    assert "leave out --no-measure" in refused("plan", *small, "--time-limit", "1h", "--no-measure", "--quiet")
    assert "leave out --time-limit" in refused("train", "--resume", out, "--time-limit", "1h")
    assert "leave out --resume" in refused("train", "--resume", out, "--dry-run")
    assert not out.exists()


def test_a_time_that_is_too_short_is_one_line(call: Callable, small: list[str], tmp_path: Path) -> None:
    code, out, err = call("train", *small, "--time-limit", "0.001s", "--out", tmp_path / "run", "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is too short" in err
    assert not (tmp_path / "run").exists()

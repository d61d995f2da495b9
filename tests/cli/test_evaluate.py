"""`ddcnn evaluate`: which data it asks for, and what it prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddcnn.config import Config
from ddcnn.runs.folder import RunFolder

RESULT = {
    "run": "r",
    "strategy": "vote",
    "data": "made",
    "part": "test",
    "learned_from": 0,
    "samples": 4,
    "accuracy": 0.75,
    "loss": 0.5,
    "brier": 0.375,
    "ece": 0.0625,
    "thresholds": None,
    "notes": ["3 files were laid on white"],
    "left_out": [{"file": "x.png", "reason": "x.png is empty"}] * 21,
    "classes": {
        "[red]a": {"accuracy": 0.5, "samples": 4, "precision": 1.0, "recall": 0.5, "f1": 0.667},
        "b": {"accuracy": None, "samples": 0, "precision": 0.0, "recall": None, "f1": 0.0},
    },
    "confusion": [[2, 2], [0, 0]],
    "subdomains": [{"index": 0, "accuracy": 0.25}, {"index": 1, "accuracy": 0.125}],
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    arguments: dict[str, Any] = {}

    def evaluate(run: Path, *, data: Any, strategy: str | None, trust: bool) -> dict[str, Any]:
        arguments.update(run=run, data=data, strategy=strategy, trust=trust)
        print("noise")
        return RESULT

    monkeypatch.setattr("ddcnn.experiments.evaluate", evaluate)
    return arguments


def test_tables(call: Callable, seen: dict, made_run: Path) -> None:
    code, out, err = call("evaluate", made_run, "--strategy", "vote")
    assert code == 0
    assert err.splitlines() == ["left out: x.png is empty"] * 20 + ["left out: 1 more files; --json names them"]
    assert (seen["run"], seen["data"].source, seen["strategy"]) == (made_run, "mnist5k", "vote")
    for part in ("[red]a", "75.0", "0.5000", "0.3750", "6.2", "25.0", "12.5"):
        assert part in out


@pytest.mark.parametrize(("learned", "said"), [(3, "learned from 3 of these images"), (None, "does not say"), (0, "")])
def test_images_that_the_run_has_learned_from(
    call: Callable, seen: dict, made_run: Path, monkeypatch: pytest.MonkeyPatch, learned: int | None, said: str
) -> None:
    monkeypatch.setitem(RESULT, "learned_from", learned)
    out = " ".join(call("evaluate", made_run).out.split())
    assert said in out
    assert ("learned" in out) == (learned != 0)


def test_a_missing_local_cnn(call: Callable, seen: dict, made_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULT, "subdomains", [{"index": 0, "accuracy": None}, {"index": 1, "accuracy": 0.5}])
    assert call("evaluate", made_run).out.count("missing") == 1


def test_json(call: Callable, seen: dict, made_run: Path) -> None:
    _, out, err = call("evaluate", made_run, "--json")
    assert json.loads(out) == RESULT
    assert err == "noise\n"


def test_other_data(call: Callable, seen: dict, made_run: Path) -> None:
    call("evaluate", made_run, "--data", "folder:x", "--data-dir", "y", "--offline", "--image-size", "16x8")
    data = seen["data"]
    assert (data.source, data.directory, data.offline, data.image_size) == ("folder:x", Path("y"), True, (16, 8))


def test_the_data_of_the_run_found_elsewhere(call: Callable, seen: dict, made_run: Path) -> None:
    call("evaluate", made_run, "--data-dir", "x", "--offline")
    assert (seen["data"].source, seen["data"].directory, seen["data"].offline) == ("mnist5k", Path("x"), True)


def test_not_a_run(refused: Callable, seen: dict, tmp_path: Path) -> None:
    assert "it is not a run" in refused("evaluate", tmp_path)


def test_a_folder_that_the_run_names(
    call: Callable, refused: Callable, seen: dict, made_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(made_run, tmp_path / "run")
    config = Config.read(run / "config.yaml")
    data = config.data.model_copy(update={"directory": tmp_path / "there"})
    (run / "config.yaml").write_text(config.model_copy(update={"data": data}).to_yaml())
    RunFolder(run).seal()
    assert "names the folder of its data" in refused("evaluate", run)
    for options, folder in ((["--trust"], "there"), (["--data-dir", tmp_path / "here"], "here")):
        assert call("evaluate", run, *options).code == 0
        assert (seen["data"].directory, seen["trust"]) == (tmp_path / folder, "--trust" in options)
    call("evaluate", run, "--data", "folder:x")
    assert seen["data"].directory is None

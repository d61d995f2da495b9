"""`experiment`: what is asked for, what is listed, what is printed and where."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ddcnn.experiments.questions import EXPERIMENTS
from tests.bars import write_bars


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    return [
        "--data", write_bars(tmp_path, (8, 8)), "--model", "tests.strategies.tiny:tiny", "--batch-size", "20",
        "--lr", "0.05", "--device", "cpu", "--precision", "float32", "--backend", "looped", "--epochs", "1",
        "--set", "aggregation={epochs: 1, hidden: [4]}",
    ]  # fmt: skip


def test_the_list_says_what_each_asks_and_costs(call: Callable, small: list[str], tmp_path: Path) -> None:
    code, out, err = call("experiment", "--list", *small, "--seeds", "2", "--json")
    assert code == 0
    assert f"planning 1 of {len(EXPERIMENTS)}: strategies\n" in err
    listed = json.loads(out)
    assert [row["name"] for row in listed["experiments"]] == list(EXPERIMENTS)
    assert all(row["question"].endswith("?") for row in listed["experiments"])
    assert {row["name"]: row["needs"] for row in listed["experiments"] if not row["seconds"]} == {
        "pretraining": ["--weights RUN"]
    }
    runs = {row["name"]: row["runs"] for row in listed["experiments"]}
    assert (runs["strategies"], runs["aggregations"], runs["subdomains"]) == (6, 2, 14)
    assert "were timed here" in listed["how"]
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_the_help_says_which_take_another_network(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    others = [name for name, one in EXPERIMENTS.items() if one.defaults.get("model", {}).get("name") == "resnet20"]
    listed = re.search(r"Default vgg9; (.*) take resnet20", call("experiment", "--help").out)
    assert listed
    assert sorted(re.split(", | and ", listed[1])) == sorted(others)
    page = (Path(__file__).parents[2] / "docs/how-to/experiments.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page.partition("Without `--model`")[2].partition("take ResNet20")[0] for name in others)


def test_what_does_not_fit_is_said_in_the_list(call: Callable, small: list[str]) -> None:
    code, out, _ = call("experiment", "subdomains", "--list", *small, "--model", "vgg9", "--grid", "1x1")
    assert code == 0
    assert "strategies" not in out
    assert "subdomains leaves out 2: " in out
    assert out.count("leaves out") == 6  # 2, 4 and 8 per axis; VGG9 needs 8 pixels; one and two levels


def test_table_on_stdout_the_rest_on_stderr(call: Callable, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "e"
    code, said, told = call("experiment", "aggregations", *small, "--seeds", "1", "--seed", "3", "--out", out)
    assert code == 0
    assert "CNN-DNN − average" in said
    assert said.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "cell 1 of 1: frozen, seed 3; about " in told
    assert f"--seeds 1 --seed 3 --out {out}" in (out / "report.html").read_text()
    code, said, told = call("experiment", "aggregations", *small, "--seeds", "1", "--seed", "3", "--out", out, "--json")
    assert json.loads(said)["units"] == [3]
    assert "cell" not in told  # there was nothing left to do


def test_what_cannot_be_used_is_one_line(refused: Callable, small: list[str], tmp_path: Path) -> None:
    assert "which experiment? give its NAME" in refused("experiment")
    assert "experiment 'strategy' is unknown: did you mean 'strategies'?" in refused("experiment", "strategy")
    assert "--epochs '0' is not valid" in refused("experiment", "timing", "--epochs", "0")
    assert "--seeds" in refused("experiment", "timing", "--seeds", "0")
    assert "no such option" in refused("experiment", "timing", "--force").lower()
    with_thesis = tmp_path / "t"
    with_thesis.mkdir()
    (with_thesis / "thesis.tex").write_text("x")
    assert "holds something that is no experiment" in refused("experiment", "timing", *small, "--out", with_thesis)

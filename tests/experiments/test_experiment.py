"""Experiments: cells are runs, what is done is never done again, and what is said of them follows from the runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.errors import ConfigError, ModelError, RunError, TrainingError
from ddcnn.experiments import plan_experiment
from ddcnn.experiments.questions import EXPERIMENTS, Experiment, Pair, Variant
from tests.bars import write_bars
from tests.experiments.stopping import Stop, Stopping, lines


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register an experiment of two small runs per seed, and one that fits no image."""

    def variants(_setup: object) -> Sequence[Variant]:
        return (
            Variant("slow", {"strategy": "local", "training": {"lr": 0.001}}, {"cnn-dnn": "slow"}),
            Variant("fast", {"strategy": "local"}, {"cnn-dnn": "fast"}),
            Variant("fine", {"decomposition": {"grid": [9, 9]}}, {"cnn-dnn": "fine"}, needed=False),
        )

    rates = Experiment("Is a higher rate better?", variants, (Pair("fast", "slow"), Pair("fine", "fast")))
    monkeypatch.setitem(EXPERIMENTS, "rates", rates)
    return "rates"


@pytest.mark.parametrize("both", [False, True])
def test_a_cell_that_diverges_does_not_end_the_others(
    values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, both: bool
) -> None:
    def variants(_setup: object) -> Sequence[Variant]:
        wild = {"strategy": "global", "training": {"lr": 1e30, "clip_norm": None}}
        return (
            Variant("wild", wild, {"global": "wild"}),
            Variant("tame", wild if both else {"strategy": "global"}, {"global": "tame"}),
        )

    monkeypatch.setitem(EXPERIMENTS, "rates", Experiment("?", variants, (Pair("wild", "tame"),)))
    progress = Stopping()
    if both:
        with pytest.raises(TrainingError, match="became NaN or infinite"):
            ddcnn.experiment("rates", values, seeds=1, out=tmp_path / "e")
        return
    found = ddcnn.experiment("rates", values, seeds=2, out=tmp_path / "e", progress=progress).summary
    assert [(arm["name"], arm["n"]) for arm in found["arms"]] == [("tame", 2)]
    assert list(found["left_out"]) == ["wild, seed 0", "wild, seed 1"]
    assert all("became NaN or infinite" in why for why in found["left_out"].values())
    assert sum("wild, seed" in note and "is left out" in note for note in progress.notes) == 2


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    arms = {
        label: {key: value for key, value in row.items() if "seconds" not in key and key != "trajectory"}
        for label, row in record["arms"].items()
    }
    return {**record, "arms": arms}


def test_killed_in_the_third_cell_it_repeats_nothing(values: dict, rates: str, tmp_path: Path) -> None:
    whole = ddcnn.experiment(rates, values, seeds=2, out=tmp_path / "whole")
    out = tmp_path / "killed"
    with pytest.raises(Stop):
        ddcnn.experiment(rates, values, seeds=2, out=out, progress=Stopping(3 + 3 + 2))  # 2 epochs and the DNN's a cell
    assert [line["cell"] for line in lines(out)] == ["slow-s0", "fast-s0"]
    done = {p: p.stat().st_mtime_ns for name in ("slow-s0", "fast-s0") for p in (out / "cells" / name).rglob("*")}
    watched = Stopping()
    again = ddcnn.experiment(rates, values, seeds=2, out=out, progress=watched)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert watched.stages == ["local", "dnn", "local", "dnn"]  # those of two cells
    assert watched.earlier >= 1  # the half-done one went on
    assert list(map(without_times, lines(out))) == list(map(without_times, lines(tmp_path / "whole")))
    assert [arm["values"] for arm in again.summary["arms"]] == [arm["values"] for arm in whole.summary["arms"]]


def test_one_variant_first_and_the_others_later(values: dict, rates: str, tmp_path: Path) -> None:
    one = ddcnn.experiment(rates, values, seeds=1, variants=["fast"], out=tmp_path / "e")
    assert [arm["name"] for arm in one.summary["arms"]] == ["fast"]
    assert one.summary["left_out"] == {"slow": "not asked for", "fine": "not asked for"}
    watched = Stopping()
    both = ddcnn.experiment(rates, values, seeds=1, out=tmp_path / "e", progress=watched)
    assert [arm["name"] for arm in both.summary["arms"]] == ["slow", "fast"]
    assert watched.stages == ["local", "dnn"]  # those of the other alone
    with pytest.raises(ConfigError, match=r"^experiment rates has no variant 'fats'; use slow, fast, fine$"):
        ddcnn.experiment(rates, values, seeds=1, variants=["fats"], out=tmp_path / "e")


def test_what_is_done_stays_whatever_is_asked_for_next(values: dict, rates: str, tmp_path: Path) -> None:
    out = tmp_path / "e"
    ddcnn.experiment(rates, values, seeds=2, variants=["fast"], out=out)
    both = ddcnn.experiment(rates, values, seeds=1, variants=["slow"], out=out, progress=(watched := Stopping()))
    assert watched.stages == ["local", "dnn"]
    assert [line["cell"] for line in lines(out)] == ["slow-s0", "fast-s0", "fast-s1"]
    assert {arm["name"]: arm["n"] for arm in both.summary["arms"]} == {"slow": 1, "fast": 2}
    assert (len(both.summary["pairs"]), both.summary["left_out"]) == (1, {"fine": "not asked for"})
    assert not any(note.startswith("variant fast is left out") for note in watched.notes)
    before = (out / "cells.jsonl").read_text()
    other = ddcnn.experiment(rates, values | {"seed": 1}, seeds=1, variants=["slow"], out=out).summary
    assert other["units"] == [0, 1]
    assert [line["cell"] for line in lines(out)] == ["slow-s0", "fast-s0", "slow-s1", "fast-s1"]
    assert set(before.splitlines()) < set((out / "cells.jsonl").read_text().splitlines())
    changed = values | {"training": values["training"] | {"epochs": 1}}
    with pytest.raises(RunError, match=r"s0 was begun with training.epochs = 2, not 1; ask for the same, or begin"):
        ddcnn.experiment(rates, changed, seeds=1, variants=["fine"], out=out)
    shutil.rmtree(out / "cells" / "fast-s1")
    ddcnn.experiment(rates, values, seeds=1, variants=["slow"], out=out)  # what is gone is not done again unasked
    assert not (out / "cells" / "fast-s1").exists()


def test_what_is_said_follows_from_the_runs(values: dict, rates: str, tmp_path: Path) -> None:
    assert ddcnn.experiment(rates, values, seeds=1, out=tmp_path / "e").summary["units"] == [0]
    watched = Stopping()
    found = ddcnn.experiment(rates, values, seeds=2, out=tmp_path / "e", progress=watched, command="the command")
    assert len(watched.stages) == 4  # those of the second seed alone
    cells = tmp_path / "e" / "cells"
    assert sorted(p.name for p in cells.iterdir()) == ["fast-s0", "fast-s1", "slow-s0", "slow-s1"]
    for arm in found.summary["arms"]:
        runs = [json.loads((cells / f"{arm['name']}-s{seed}" / "comparison.json").read_text()) for seed in (0, 1)]
        accuracies = [run["strategies"][-1]["test_accuracy"] for run in runs]
        assert arm["values"] == accuracies
        assert arm["mean"] == pytest.approx(sum(accuracies) / 2)
    (pair,) = found.summary["pairs"]  # the one with what was left out is gone
    fast, slow = (next(a["values"] for a in found.summary["arms"] if a["name"] == name) for name in ("fast", "slow"))
    assert pair["mean"] == pytest.approx(sum(f - s for f, s in zip(fast, slow, strict=True)) / 2)
    assert len(pair["mcnemar_p"]) == 2
    assert "fine" in found.summary["left_out"]
    assert any(note.startswith("variant fine is left out: ") for note in watched.notes)
    assert any("cell 3 of 4: slow, seed 1; about " in note for note in watched.notes)
    assert found.summary["command"] == "the command"
    assert json.loads((tmp_path / "e" / "summary.json").read_text()) == json.loads(json.dumps(found.summary))


@pytest.mark.parametrize("what", ["images", "labels", "fewer"])
def test_cells_of_other_images_are_not_compared(rates: str, values: dict, tmp_path: Path, what: str) -> None:
    """More seeds later, after the file was changed: half of the cells would have learned from other images."""
    source = write_bars(tmp_path, (8, 8))
    mine = values | {"data": {"source": source}}
    ddcnn.experiment(rates, mine, seeds=1, out=tmp_path / "e")
    before = (tmp_path / "e" / "cells.jsonl").read_text()
    arrays = dict(np.load(tmp_path / "d.npz"))
    if what == "fewer":
        arrays = {name: array[:-3] for name, array in arrays.items()}
    elif what == "images":
        arrays["images"][7, 0, 0] ^= 1
    else:
        arrays["labels"][:2] = arrays["labels"][1::-1]
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(RunError, match=r"is not what .*slow-s0 was trained on: .*; put them back, or begin anew"):
        ddcnn.experiment(rates, mine, seeds=2, out=tmp_path / "e")
    assert (tmp_path / "e" / "cells.jsonl").read_text() == before
    write_bars(tmp_path, (8, 8))
    assert ddcnn.experiment(rates, mine, seeds=2, out=tmp_path / "e").summary["units"] == [0, 1]


def test_what_lies_in_the_folder_of_an_experiment(rates: str, values: dict, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.png").touch()
    mine = values | {"data": {"source": f"folder:{tmp_path / 'images'}"}}
    for out, message in ((tmp_path / "images" / "e", "among the images"), (tmp_path, "would be read, but lies in")):
        with pytest.raises(RunError, match=message):
            ddcnn.experiment(rates, mine, seeds=1, out=out)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a"]
    out = tmp_path / "e"
    out.mkdir()
    (out / "experiment.json").write_text('{"format": 2, "experiment": "rates"}')
    with pytest.raises(RunError, match=r"is of format 2, this version of ddcnn reads 1; go on with the version that"):
        ddcnn.experiment(rates, values, seeds=1, out=out)
    (out / "experiment.json").write_text('{"format": 1, "experiment": "rates"}')
    os.mkfifo(out / "cells.jsonl")
    with pytest.raises(RunError, match=r"cells\.jsonl cannot be read: .*a named pipe, not a file"):
        ddcnn.experiment(rates, values, seeds=1, out=out)


def test_decisions_are_those_of_the_network(values: dict, tmp_path: Path) -> None:
    run = ddcnn.train(ddcnn.Config.parse(values | {"out": tmp_path / "r"})).run
    from ddcnn.runs.folder import RunFolder

    told = RunFolder(run).read_tensors("decisions.safetensors")
    test = torch.tensor(json.loads((run / "split.json").read_text())["test"])
    dataset = ddcnn.open_data(ddcnn.Config.parse(values).data)
    with torch.no_grad():
        decided = ddcnn.load(run, trust=True)(dataset.images[test]).argmax(1)
    assert torch.equal(told["cnn-dnn"].long(), decided)
    assert torch.equal(told["labels"].long(), dataset.labels[test])


def test_other_settings_and_other_folders_are_refused(values: dict, rates: str, tmp_path: Path) -> None:
    out = tmp_path / "e"
    ddcnn.experiment(rates, values, seeds=1, out=out)
    other = values | {"training": values["training"] | {"epochs": 3}}
    with pytest.raises(RunError, match=r"slow-s0 was begun with training.epochs = 2, not 3; ask for the same, or"):
        ddcnn.experiment(rates, other, seeds=1, out=out)
    with pytest.raises(RunError, match=r"slow-s0 was begun with transfer.epochs = None, not 5"):
        ddcnn.experiment(rates, values | {"transfer": {"epochs": 5}}, seeds=1, out=out)
    with pytest.raises(RunError, match="holds experiment 'rates'; choose another --out"):
        ddcnn.experiment("aggregations", values, out=out)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds something that is no experiment"):
        ddcnn.experiment(rates, values, out=tmp_path / "thesis")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="did you mean 'rates'"):
        ddcnn.experiment("rate", values)
    with pytest.raises(ConfigError, match="seeds = 0 should be at least 1"):
        ddcnn.experiment(rates, values, seeds=0)


@pytest.mark.parametrize("unit", ["fold", "seed"])
def test_splits_of_the_same_images_have_wider_intervals(values: dict, rates: str, tmp_path: Path, unit: str) -> None:
    data = values["data"] | ({"folds": "2"} if unit == "fold" else {})
    config = values | {"data": data, "training": values["training"] | {"epochs": 1}}
    found = ddcnn.experiment(rates, config, out=tmp_path / "e", **({} if unit == "fold" else {"seeds": 2})).summary
    assert (found["unit"], found["units"]) == (unit, [0, 1])
    sizes = [line["samples"] for line in lines(tmp_path / "e")]
    share = sum(n["test"] / n["train"] for n in sizes) / len(sizes)
    arm = found["pairs"][0]
    half = (arm["interval"][1] - arm["interval"][0]) / 2
    assert half == pytest.approx(12.706204736 * arm["sd"] * (1 / 2 + share) ** 0.5)  # t table, 1 degree of freedom


def test_a_network_that_does_not_fit_is_found_before_any_training(values: dict, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        ddcnn.experiment("timing", values | {"model": {"name": "vgg9"}}, out=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_without_test_images_nothing_is_compared(values: dict, tmp_path: Path) -> None:
    values = {**values, "data": {**values["data"], "test": 0}}
    with pytest.raises(ConfigError, match=r"compares accuracies on test images, and data\.test = 0 leaves none"):
        ddcnn.experiment("levels", values, seeds=1, out=tmp_path / "e")
    assert not list(tmp_path.glob("e/*"))


def test_one_of_your_own_is_a_file(values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "experiments.md").read_text(encoding="utf-8")
    ((name, code),) = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", page, re.S)
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (own,) = re.findall(rf"ddcnn experiment ({name}:\w+)", page)
    plan = plan_experiment(own, values, seeds=2)
    assert [cell.config.training.lr for cell in plan.cells(tmp_path)] == [0.05, 0.2] * 2
    assert set(re.findall(r"^\| `([\w-]+)` \| \w+ .*\?", page, re.M)) == set(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, name)

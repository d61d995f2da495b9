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
from ddcnn.aggregation import HandedOver
from ddcnn.errors import ConfigError, ModelError, RunError, TrainingError
from ddcnn.experiments import plan_experiment
from ddcnn.experiments.questions import EXPERIMENTS, Experiment, Pair, Variant
from ddcnn.experiments.questions.aggregations import PERMUTED
from ddcnn.experiments.questions.operations import operations
from ddcnn.experiments.questions.strategies import AS_LONG, AS_MANY
from ddcnn.experiments.questions.trajectories import TimedAccuracy, reached_by, time_to
from ddcnn.planning import prepare
from ddcnn.report import experiment_remarks, write_experiment_report
from ddcnn.training import Progress
from tests.bars import write_bars


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "data": {"source": write_bars(tmp_path_factory.mktemp("data"), (8, 8))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": [1, 2]},
        "training": {"epochs": 2, "batch_size": 20, "lr": 0.05},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }


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


class Stop(BaseException):
    """The end of a process."""


class Stopping(Progress):
    """Ends everything after so many epochs, and remembers what it was told."""

    def __init__(self, epochs: int = -1) -> None:
        self.left, self.notes, self.stages, self.earlier = epochs, [], [], 0  # type: ignore[var-annotated]

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.stages.append(stage)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        self.earlier += len(rows)

    def epoch(self, row: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]


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


def test_the_aggregations_share_their_local_cnns(values: dict, tmp_path: Path) -> None:
    found = ddcnn.experiment("aggregations", values, seeds=1, out=tmp_path / "e")
    learned = ["weighted average", "attention", "gated mixture"]
    assert [arm["name"] for arm in found.summary["arms"]] == ["average", "vote", "CNN-DNN", PERMUTED.label, *learned]
    run = tmp_path / "e" / "cells" / "frozen-s0"
    assert len(list((run / "locals").iterdir())) == 2
    rows = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["stage"] for row in rows].count("local") == 2  # epochs of one training
    assert ddcnn.load(run, "permuted", trust=True) is not None


def test_the_permuted_control_cannot_tell_who_said_what(seeded: None) -> None:
    module = PERMUTED.build(HandedOver.of("probability", 3, 2), ddcnn.Config().aggregation)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    p = torch.rand(50, 3, 2).softmax(2)
    module.eval()
    torch.testing.assert_close(module(p[:, [2, 0, 1]]), module(p))  # as if nothing were exchanged
    torch.testing.assert_close(module(p)[7:8], module(p[7:8]))  # and it hangs on nothing but the sample
    inner = module.aggregation
    assert not torch.allclose(inner(p[:, [2, 0, 1]]), inner(p))
    orders = {tuple(row.tolist()) for row in _order(module, p)}
    assert len(orders) == 6  # all orders occur


def _order(module: torch.nn.Module, p: torch.Tensor) -> torch.Tensor:
    seen = []
    module.aggregation.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    module(p)
    return (seen[0].unsqueeze(2) == p.unsqueeze(1)).all(3).int().argmax(2)


def test_missing_is_measured_with_each_dropout(values: dict, tmp_path: Path) -> None:
    found = ddcnn.experiment("missing", values, seeds=1, out=tmp_path / "e").summary
    (record,) = lines(tmp_path / "e")
    assert record["arms"]["average"]["measures"].keys() == {"without 1"}
    told = json.loads((tmp_path / "e" / "cells" / "frozen-s0" / "comparison.json").read_text())
    rows = told["details"]["missing"]["dropout-25"]["random"]
    label = "CNN-DNN, dropout 25 %"
    assert record["arms"][label]["measures"]["without 1"] == rows[0]["mean"]
    assert dict.fromkeys(found["curves"][0]["lines"]).keys() == record["arms"].keys()
    assert [pair["measure"] for pair in found["pairs"]] == ["test_accuracy", "without 1", "without 1", "without 1"]
    networks = json.loads((tmp_path / "e" / "cells" / "frozen-s0" / "networks.json").read_text())
    assert {name for name in networks if name.startswith("dropout")} == {"dropout-0", "dropout-10", "dropout-25"}


def test_controls_of_the_strategies_have_equal_effort(values: dict) -> None:
    plan = plan_experiment("strategies", values, seeds=2)
    configs = {label: plan.configs[v.name] for v in plan.variants for label in v.arms.values()}
    assert configs["transfer"].training.epochs == 2
    assert configs[AS_LONG].training.epochs == 4
    setup = prepare(ddcnn.Config.parse(values))
    whole, local = operations(setup.networks)
    # a 3x3 convolution to 8 channels, of 8x8 pixels, and a linear layer to 3; locally 8 / sqrt(2) -> 6 channels
    assert whole == 2 * (8 * 8 * 9 * 8 + 8 * 64 * 3)
    assert local == 2 * 2 * (8 * 4 * 9 * 6 + 6 * 32 * 3)
    assert configs[AS_MANY].training.epochs == round(4 * local / whole) == 3
    assert len(plan.cells(Path("o"))) == 6
    assert plan.all_seconds > 0


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_each_experiment_compares_arms_that_it_has(name: str, values: dict) -> None:
    experiment = EXPERIMENTS[name]
    setup = prepare(ddcnn.Config.parse(values | {"decomposition": {"grid": [2, 2]}}))
    variants = experiment.variants(setup)
    arms = [label for variant in variants for label in variant.arms.values()]
    assert len(set(arms)) == len(arms)
    assert len({variant.name for variant in variants}) == len(variants)
    told = experiment.chosen({label: [{"validation_accuracy": 0.5}] for label in arms})
    assert {arm for pair in experiment.pairs for arm in (pair.arm, pair.other)} <= set(told)
    assert experiment.question.endswith("?")


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


def test_times_to_an_accuracy_are_censored_where_it_was_not_reached() -> None:
    points = [TimedAccuracy(5.0, 2.0, 0.7), TimedAccuracy(6.0, 3.0, 0.9), TimedAccuracy(7.0, 4.0, 0.8)]
    assert time_to(points, 0.75) == points[1]
    assert time_to(points, 0.95) is None
    assert [reached_by(points, s) for s in (1.0, 2.5, 10.0)] == [None, 0.7, 0.9]


def test_a_trajectory_ends_where_the_run_did(values: dict, tmp_path: Path) -> None:
    found = ddcnn.experiment("timing", values, seeds=1, out=tmp_path / "e").summary
    (record,) = lines(tmp_path / "e")
    for label, epochs in {"global CNN": 2, "average": 0, "CNN-DNN": 1, "coherent": 2, "transfer": 2}.items():
        row = record["arms"][label]
        assert len(row["trajectory"]) == epochs + 1
        seconds, path, accuracy = row["trajectory"][-1]
        assert seconds == pytest.approx(row["seconds"], abs=1e-5)
        assert path == pytest.approx(row["critical_path_seconds"], abs=1e-5)
        assert accuracy == pytest.approx(row["validation_accuracy"], abs=1e-5)
        assert [point[0] for point in row["trajectory"]] == sorted(point[0] for point in row["trajectory"])
    assert [table["title"][:16] for table in found["tables"]] == ["Time to accuracy"] * 2
    start = record["arms"]["transfer"]["trajectory"][0][0]
    assert start > record["arms"]["CNN-DNN"]["seconds"]  # the first phase counts


def test_the_voronoi_arm_is_not_the_grid_once_more(values: dict, tmp_path: Path) -> None:
    """Four sites in a square may settle at the centres of a 2x2 grid: then two arms would be the same runs."""
    squares = values | {
        "data": {"source": write_bars(tmp_path, (12, 12))},
        "decomposition": {"grid": [2, 2]},
    }
    plan = plan_experiment("decompositions", squares, seeds=1, variants=["grid", "voronoi"])
    found = {name: prepare(config).networks.decomposition.subdomains((12, 12)) for name, config in plan.configs.items()}
    assert len(found["voronoi"]) == len(found["grid"]) == 4
    masks = [one.inside for one in found["voronoi"]]
    assert sum(mask is not None and not bool(mask.all()) for mask in masks) > 2


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register an experiment whose two variants were, another time, the fastest in different precisions."""

    def variants(_setup: object) -> Sequence[Variant]:
        return (
            Variant("one", {"strategy": "local", "decomposition": {"grid": [1, 2]}}, {"cnn-dnn": "one"}),
            Variant("two", {"strategy": "local", "decomposition": {"grid": [2, 2]}}, {"cnn-dnn": "two"}),
        )

    def remembered(_names: object, about: Sequence[Any]) -> dict[str, float]:
        low, full = (1.0, 2.0) if tuple(about[0].grid) == (1, 2) else (2.0, 1.0)
        return {"bfloat16 looped": low, "float32 looped": full}

    monkeypatch.setattr("ddcnn.planning.measured_choices.remembered", remembered)
    monkeypatch.setitem(EXPERIMENTS, "cuts", Experiment("More cuts?", variants, (Pair("two", "one"),)))
    return "cuts"


def test_all_cells_compute_in_one_precision(values: dict, cuts: str, tmp_path: Path) -> None:
    """Else arms would differ in it, too; also those that are asked for later, and by whom it is asked for."""
    auto = values | {"compute": {"device": "cpu", "backend": "looped"}}
    alone = plan_experiment(cuts, auto, variants=["one"])
    assert alone.precision == "bfloat16"  # as its variant alone would take
    watched = Stopping()
    both = ddcnn.experiment(cuts, auto, seeds=1, out=tmp_path / "both", progress=watched)
    assert {line["config"]["compute"]["precision"] for line in lines(tmp_path / "both")} == {"float32"}
    assert watched.notes[0] == "precision float32, in all cells"
    assert both.summary["differing"] == {}
    ddcnn.experiment(cuts, auto, seeds=1, variants=["one"], out=tmp_path / "later")
    ddcnn.experiment(cuts, auto, seeds=2, out=tmp_path / "later")
    assert {line["config"]["compute"]["precision"] for line in lines(tmp_path / "later")} == {"bfloat16"}
    ddcnn.experiment(cuts, values, seeds=1, variants=["two"], out=tmp_path / "asked")  # float32
    ddcnn.experiment(cuts, auto, seeds=1, out=tmp_path / "asked")
    assert {line["config"]["compute"]["precision"] for line in lines(tmp_path / "asked")} == {"float32"}


def test_an_experiment_of_an_earlier_version_goes_on_and_says_how_its_cells_differ(
    values: dict, cuts: str, tmp_path: Path
) -> None:
    """Its cells chose for themselves; so do those to come, since all of a variant should be alike."""
    auto = values | {"compute": {"device": "cpu", "backend": "looped"}}
    ddcnn.experiment(cuts, auto, seeds=1, variants=["one"], out=tmp_path / "e")
    mark = json.loads((tmp_path / "e" / "experiment.json").read_text())
    del mark["precision"]
    (tmp_path / "e" / "experiment.json").write_text(json.dumps(mark))
    found = ddcnn.experiment(cuts, auto, seeds=1, out=tmp_path / "e")
    assert found.summary["differing"] == {"precision": {"bfloat16": ["one-s0"], "float32": ["two-s0"]}}
    remark = (
        "not the same in all cells, so that results may differ by it: precision bfloat16 (one-s0), float32 (two-s0)"
    )
    assert experiment_remarks(found.summary) == [remark]
    assert remark in write_experiment_report(tmp_path / "e").read_text()
    mark["precision"] = "float8"
    (tmp_path / "e" / "experiment.json").write_text(json.dumps(mark))
    with pytest.raises(RunError, match=r"experiment.json is damaged: precision 'float8'; begin anew with"):
        ddcnn.experiment(cuts, auto, seeds=1, out=tmp_path / "e")

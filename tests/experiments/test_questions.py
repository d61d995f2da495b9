"""What each question compares: variants, controls, and what is measured of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ddcnn
from ddcnn.aggregation import HandedOver
from ddcnn.experiments import plan_experiment
from ddcnn.experiments.questions import EXPERIMENTS
from ddcnn.experiments.questions.aggregations import PERMUTED
from ddcnn.experiments.questions.operations import operations
from ddcnn.experiments.questions.strategies import AS_LONG, AS_MANY
from ddcnn.experiments.questions.trajectories import TimedAccuracy, reached_by, time_to
from ddcnn.planning import prepare
from tests.bars import write_bars
from tests.experiments.stopping import lines


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

"""All cells of an experiment compute in one precision, or it says which do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ddcnn
from ddcnn.errors import RunError
from ddcnn.experiments import plan_experiment
from ddcnn.experiments.questions import EXPERIMENTS, Experiment, Pair, Variant
from ddcnn.report import experiment_remarks, write_experiment_report
from tests.experiments.stopping import Stopping, lines


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

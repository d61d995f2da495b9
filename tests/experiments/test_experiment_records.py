"""What an experiment says follows from its runs, whatever became of its own files; and each p-value has its seed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from torch.optim.optimizer import register_optimizer_step_pre_hook

import ddcnn
from ddcnn.errors import RunError
from ddcnn.experiments import plan_experiment
from ddcnn.experiments.questions import EXPERIMENTS, Experiment, Findings, Pair, Variant
from ddcnn.experiments.questions.trajectories import at_equal_path
from ddcnn.report import experiment_remarks, write_experiment_report
from ddcnn.training import Progress
from tests.bars import write_bars

Run = Callable[..., dict[str, Any]]
VALUES: dict[str, Any] = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "strategy": "global",
    "training": {"epochs": 2, "batch_size": 20, "lr": 0.05},
    "compute": {"device": "cpu", "precision": "float32"},
}


class Notes(Progress):
    """Keeps what was said, and what was trained."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.stages.append(stage)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs an experiment of two small variants, and a third one whose loss diverges."""
    values = VALUES | {"data": {"source": write_bars(tmp_path, (8, 8))}}

    def variants(_setup: object) -> Sequence[Variant]:
        return (
            Variant("slow", {"training": {"lr": 0.001}}, {"global": "slow"}),
            Variant("fast", {}, {"global": "fast"}),
            Variant("wild", {"training": {"lr": 1e30, "clip_norm": None}}, {"global": "wild"}),
        )

    monkeypatch.setitem(EXPERIMENTS, "rates", Experiment("Faster?", variants, (Pair("fast", "slow"),)))

    def run(seed: int = 0, seeds: int = 1, progress: Progress | None = None, variants: Any = ("slow", "fast")) -> Any:
        given = values | {"seed": seed}
        return ddcnn.experiment(
            "rates", given, seeds=seeds, variants=variants, out=tmp_path / "e", progress=progress
        ).summary

    return run


def test_of_what_is_done_not_even_a_step_is_timed(run: Run) -> None:
    steps = [0]

    def count(*_: object) -> None:
        steps[0] += 1

    handle = register_optimizer_step_pre_hook(count)
    try:
        first = run(variants=["slow"])
        assert steps[0] > 0
        steps[0] = 0
        assert run(variants=["slow"])["arms"] == first["arms"]
        assert steps[0] == 0
    finally:
        handle.remove()


def test_what_is_like_something_done_is_timed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = VALUES | {"data": {"source": write_bars(tmp_path, (8, 8))}}

    def variants(_setup: object) -> Sequence[Variant]:
        return (
            Variant("first", {"training": {"lr": 0.01}}, {"global": "first"}),
            *(Variant(f"trial-{n}", {}, {"global": f"trial-{n}"}, like="first") for n in range(2)),
        )

    monkeypatch.setitem(EXPERIMENTS, "rates", Experiment("Faster?", variants, ()))
    plan = plan_experiment("rates", values, seeds=1, done=["first-s0"])
    assert plan.seconds["first"] == 0
    assert plan.seconds["trial-0"] == plan.seconds["trial-1"] > 0
    assert plan_experiment("rates", values, seeds=2, done=["first-s0"]).seconds["first"] > 0


def right(cell: Path) -> np.ndarray:
    network = ddcnn.load(cell, trust=True)
    test = json.loads((cell / "split.json").read_text())["test"]
    dataset = ddcnn.open_data(ddcnn.Config.read(cell / "config.yaml").data)
    return (network(dataset.images[test]).argmax(1) == dataset.labels[test]).numpy()


def test_each_p_value_stands_under_its_seed(run: Run, tmp_path: Path) -> None:
    run(seeds=3, variants=["slow"])
    summary = run(seed=1, seeds=2, variants=["fast"])
    assert summary["units"] == [0, 1, 2]
    (pair,) = summary["pairs"]
    expected: list[float | None] = [None]
    for seed in (1, 2):
        fast, slow = (right(tmp_path / "e" / "cells" / f"{name}-s{seed}") for name in ("fast", "slow"))
        gained, lost = int((fast & ~slow).sum()), int((slow & ~fast).sum())
        expected.append(binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)
    assert pair["mcnemar_p"] == [None, pytest.approx(expected[1]), pytest.approx(expected[2])]
    page = re.sub(r"\s+", " ", write_experiment_report(tmp_path / "e").read_text())
    rows = re.findall(r"<tr><th scope=\"row\">fast − slow</th>(.*?)</tr>", page)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert cells[0][1] == "2"  # the seeds that both have
    assert cells[1][0] == "-"
    assert len(cells[1]) == 3
    assert "With 2 seeds Wilcoxon" in page or summary["share"]


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no machine": lambda line: line.pop("machine"),
    "no arms": lambda line: line.pop("arms"),
    "arms": lambda line: line.update(arms=5),
    "no seed": lambda line: line.pop("seed"),
    "fold": lambda line: line.update(fold=3),
    "accuracy": lambda line: line["arms"]["slow"].update(test_accuracy=0.1),
    "text": lambda line: line["arms"]["slow"].update(test_accuracy="abc"),
    "result": lambda line: line["arms"]["slow"].update(result="nothing"),
    "config": lambda line: line["config"]["training"].update(epochs=99),
    "trajectory": lambda line: line["arms"]["slow"].update(trajectory=[[1]]),
}


def test_lines_that_say_something_else_than_their_runs_are_written_again(run: Run, tmp_path: Path) -> None:
    before = run(seeds=2)
    file = tmp_path / "e" / "cells.jsonl"
    true = file.read_text()
    for what, damage in DAMAGE.items():
        lines = [json.loads(line) for line in true.splitlines()]
        damage(lines[0])
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert run(seeds=2, progress=(said := Notes())) == before, what
        assert file.read_text() == true, what
        assert not said.stages
        assert any("cells.jsonl: the lines of slow-s0 are not what their runs say" in note for note in said.notes), what


def test_an_earlier_version_knew_fewer_fields(run: Run, tmp_path: Path) -> None:
    """Its lines are completed, and nothing is wrong with them."""
    before = run()
    file = tmp_path / "e" / "cells.jsonl"
    true = file.read_text()
    lines = [json.loads(line) for line in true.splitlines()]
    for line in lines:
        line["config"]["compute"].pop("cuda_graphs")
        line["config"].pop("transfer")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(progress=(said := Notes())) == before
    assert file.read_text() == true
    assert not [note for note in said.notes if "cells.jsonl" in note]


@pytest.mark.parametrize("end", ["cut", "gone", "bytes"])
def test_damaged_lines_cost_no_training(run: Run, tmp_path: Path, end: str) -> None:
    before = run(seeds=2)
    file = tmp_path / "e" / "cells.jsonl"
    true = file.read_text()
    if end == "gone":
        file.unlink()
    else:
        file.write_text(true[:-300] if end == "cut" else "{}{\n" + true)
    assert run(seeds=2, progress=(said := Notes())) == before
    assert file.read_text() == true
    assert not said.stages
    assert end == "gone" or any("is damaged" in note and "is read from the run again" in note for note in said.notes)


def test_a_damaged_run_says_how_to_train_its_cell_again(run: Run, tmp_path: Path) -> None:
    before = run(seeds=2)
    (tmp_path / "e" / "cells" / "fast-s1" / "decisions.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match=r"fast-s1.*; or remove .*fast-s1, and the same command trains this cell anew"):
        run(seeds=2)
    for path in (tmp_path / "e" / "cells" / "fast-s1").iterdir():
        if path.is_file():
            path.unlink()
    after = run(seeds=2, progress=(said := Notes()))
    assert said.stages == ["global"]
    assert [arm["values"] for arm in after["arms"]] == [arm["values"] for arm in before["arms"]]


def test_what_is_missing_is_told_with_the_result(run: Run) -> None:
    remarks = experiment_remarks(run(variants=["slow", "wild"]))
    assert len(remarks) == 1  # not what nobody asked for
    assert re.match(r"left out: wild, seed 0: .*became NaN or infinite", remarks[0])


def test_what_was_reached_within_a_time_does_not_fall() -> None:
    """One seed was slow: its end is that of the arm, and all are looked at then."""

    def row(*points: tuple[float, float]) -> dict[str, Any]:
        return {"trajectory": [(seconds, seconds, accuracy) for seconds, accuracy in points]}

    quick = [row((1.0, 0.5), (2.0, 0.9)), row((1.0, 0.5), (2.0, 0.9))]
    late = [row((3.0, 0.6), (4.0, 0.8)), row((9.0, 0.6), (10.0, 0.7))]
    between = [row((2.5, 0.4), (5.0, 1.0)), row((2.5, 0.4), (6.0, 0.6))]
    table = at_equal_path(Findings({"late": late, "quick": quick, "between": between}), ("quick", "late", "between"))
    assert table.columns[1:] == ("2.0 s (quick)", "6.0 s (between)", "10.0 s (late)")
    rows = {name: cells for name, *cells in table.rows}
    assert rows["quick"] == ["90.0", "90.0", "90.0"]
    assert rows["between"] == ["-", "80.0", "80.0"]
    assert rows["late"] == ["-", "-", "75.0"]

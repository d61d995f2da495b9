"""A plan: counts against arithmetic, times against fixed paces, and what is planned against what is trained."""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import ddcnn
from ddcnn.errors import ConfigError
from ddcnn.experiments.job import Job
from ddcnn.experiments.plan import costs_of, epochs_within, works_of_job
from ddcnn.experiments.trials import Trials
from ddcnn.experiments.workers import START, Hands, shared
from ddcnn.planning import Setup, Trial, Work, prepare
from ddcnn.training import Progress
from tests.bars import write_bars
from tests.setups import decided

STEP, LOOK = 0.5, 0.01  # seconds
# of 90 images a fifth tests; of 72 a tenth, at least one of each class, chooses the epoch
TRAIN, VALIDATION, ALL, BATCH, EPOCHS, DNN_EPOCHS = 65, 7, 90, 20, 4, 2
STEPS = TRAIN // BATCH


class FixedPace(Trials):
    """As if everything had been measured."""

    def of(self, setup: Setup, work: Work, threads: int | None = None) -> Trial:
        share = 1.0 if not work.placed else len(work.own or ()) / len(setup.networks.decomposition)
        return Trial(STEP * share, LOOK * share, 2**20, 2**21)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {
        "data": {"source": write_bars(tmp_path, (8, 8))},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"batch_size": BATCH, "lr": 0.05, "epochs": EPOCHS},
        "aggregation": {"epochs": DNN_EPOCHS, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": str(tmp_path / "run"),
    }


def test_counts_are_those_of_arithmetic(values: dict, tmp_path: Path) -> None:
    plan = ddcnn.plan(ddcnn.Config.parse(values), measure=False)
    stages = {stage.name: stage for stage in plan.stages}
    assert list(stages) == ["global", "local", "dnn", "coherent", "transfer"]
    # a 3x3 convolution of 8x8 pixels to 8 channels, batch norm, a linear layer to 3 classes
    assert stages["global"].parameters == (9 * 8 + 8) + 2 * 8 + (8 * 64 * 3 + 3)
    assert stages["global"].operations == 3 * 2 * (64 * 9 * 8 + 8 * 64 * 3)
    # the same of 4x4 pixels to 8 / sqrt(4) = 4 channels, four times
    local = 4 * ((9 * 4 + 4) + 2 * 4 + (4 * 16 * 3 + 3))
    dnn = (12 * 4 + 4) + (4 * 3 + 3) + 1
    assert stages["local"].parameters == local
    assert stages["local"].operations == 4 * 3 * 2 * (16 * 9 * 4 + 4 * 16 * 3)
    assert stages["coherent"].parameters == stages["transfer"].parameters == local + dnn
    assert stages["coherent"].exchanged_per_step == BATCH * 4 * 3 * 4  # images, subdomains, classes, bytes
    assert stages["coherent"].exchanged == EPOCHS * STEPS * stages["coherent"].exchanged_per_step
    assert stages["local"].exchanged == stages["global"].exchanged == 0
    # of the input of the convolution, 8 channels after it, after batch norm and after ReLU: 4 bytes each
    assert stages["global"].activations >= BATCH * 64 * 4 * (1 + 8 + 8)
    assert stages["global"].memory == stages["global"].activations + 4 * 4 * stages["global"].parameters
    assert plan.seconds is plan.peak is None
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_counting_leaves_nothing_in_memory(values: dict) -> None:
    config = ddcnn.Config.parse(values)
    ddcnn.plan(config, measure=False)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(found, torch.Tensor) for found in gc.get_objects())

    before = tensors()
    ddcnn.plan(config, measure=False)
    assert tensors() <= before


def test_what_is_planned_is_what_is_trained(values: dict) -> None:
    trained: dict[str, int] = {}

    class Counting(Progress):
        def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
            trained[stage] = epochs * steps

    config = ddcnn.Config.parse(values)
    plan = ddcnn.plan(config, measure=False)
    ddcnn.compare(config, progress=Counting())
    assert trained == {stage.name: stage.steps for stage in plan.stages}


@pytest.mark.parametrize(
    "changes",
    [
        {"init": {"name": "shared", "epochs": 3}},
        {"init": {"name": "contrastive", "epochs": 3}, "strategy": "coherent"},
        {"strategy": "compose", "compose": {"epochs": 2}},
        {"training": {"local_objective": "ce+reconstruction", "sam": 0.1, "ema": 0.9}},
        {"model": {"name": "lda"}},
        {"model": {"name": "lda"}, "strategy": "global"},
    ],
    ids=str,
)
def test_whatever_is_trained_is_planned(values: dict, changes: dict[str, Any]) -> None:
    if changes.get("init", {}).get("name") == "contrastive":
        pytest.importorskip("pytorch_metric_learning")
    trained: dict[str, int] = {}

    class Counting(Progress):
        def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
            trained[stage] = epochs * steps

    for section, found in changes.items():
        values[section] = {**values.get(section, {}), **found} if isinstance(found, dict) else found
    config = ddcnn.Config.parse(values)
    plan = ddcnn.plan(config, job="train")
    ddcnn.train(config, progress=Counting())
    assert trained == {stage.name: stage.steps for stage in plan.stages}
    assert plan.seconds is not None


@pytest.mark.parametrize("name", ["holdout", "crossfit"])
def test_trainings_of_local_cnns_are_all_counted(values: dict, name: str) -> None:
    values["aggregation"] |= {"aggregate_on": name, "folds": 2}
    setup = decided(values)
    works = works_of_job(setup, Job.of("train", setup.config))
    seen = {"holdout": TRAIN - 13, "crossfit": TRAIN + TRAIN}[name]  # a fifth is held out; folds are trained without it
    assert sum(len(work.train) for work in works if work.placed) == pytest.approx(seen, abs=2)


def test_times_are_steps_and_looks(values: dict) -> None:
    setup = decided(values)
    found = costs_of(setup, Job.of("compare", setup.config), Hands(), FixedPace())
    whole = EPOCHS * (STEPS * STEP + VALIDATION * LOOK)
    assert found["global"].seconds == found["coherent"].seconds == pytest.approx(whole)
    assert found["local"].seconds == pytest.approx(whole)
    dnn = DNN_EPOCHS * (STEP + VALIDATION * LOOK)  # 65 images are one batch of 256
    assert found["dnn"].seconds == pytest.approx(
        dnn + (TRAIN + VALIDATION) * LOOK
    )  # the local CNNs look at these first
    looked_at = 3 * ALL + (
        ALL - TRAIN - VALIDATION
    )  # global, coherent and transfer at all, local CNNs at the test images
    assert found["evaluation"].seconds == pytest.approx(looked_at * LOOK)
    assert found["global"].peak == 2**20
    assert found["evaluation"].peak == 2**21


def test_a_mean_of_weights_looks_at_training_images_too(values: dict) -> None:
    def seconds(**more: float) -> float:
        setup = decided(values | {"training": values["training"] | more})
        return costs_of(setup, Job.of("compare", setup.config), Hands(), FixedPace())["global"].seconds

    assert seconds(ema=0.9) - seconds() == pytest.approx(EPOCHS * STEPS * BATCH * LOOK)  # fewer than 32 batches: all


def test_workers_share_the_groups(values: dict) -> None:
    values["compute"] |= {"group": 1}
    setup = decided(values)
    job = Job.of("train", setup.config)
    alone = costs_of(setup, job, Hands(), FixedPace())["local"].seconds
    shared_by_two = costs_of(setup, job, Hands(2, 1), FixedPace())["local"].seconds
    assert shared_by_two == pytest.approx(START + alone / 2)
    shares = shared(setup, works_of_job(setup, job), FixedPace())
    assert {one.workers: one.seconds for one in shares if one.where == "elsewhere"} == {
        2: pytest.approx(alone / 2),
        4: pytest.approx(alone / 4),
    }


def test_as_many_epochs_as_fit(values: dict) -> None:
    setup = decided(values)
    job = Job.of("compare", setup.config)
    epochs = epochs_within(setup, job, Hands(), FixedPace(), 100.0, time.monotonic())
    taken = [
        sum(cost.seconds for cost in costs_of(setup.with_epochs(n), job, Hands(), FixedPace()).values())
        for n in (epochs, epochs + 1)
    ]
    assert taken[0] <= 100 < taken[1]


def test_preparing_is_a_part_of_the_time(values: dict) -> None:
    setup = decided(values)

    def within(limit: float, gone: float) -> int:
        job = Job.of("compare", setup.config)
        return epochs_within(setup, job, Hands(), FixedPace(), limit, time.monotonic() - gone)

    assert within(600.0, 500.0) == pytest.approx(within(100.0, 0.0), abs=1)
    for limit, gone, told in (
        (500.0, 499.0, "8 min is too short: preparing has taken 8 min"),
        (40.0, 60.0, "40 s .* 60 s"),
    ):
        with pytest.raises(
            ConfigError, match=rf"^a time limit of {told}, and one epoch of each stage .* take [0-9]+ s"
        ):
            within(limit, gone)


def test_a_plan_for_a_time_is_that_of_the_run(values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0.0

    def slowly(*args: Any) -> Setup:
        nonlocal slept
        slept += 400  # as if it took long to find out what fits in the memory
        return prepare(*args)

    clock, monotonic = sys.modules["ddcnn.experiments.plan"], time.monotonic
    monkeypatch.setattr("ddcnn.experiments.trials.try_out", lambda work, careful: Trial(100.0, 0.0, None))
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: monotonic() + slept))
    for module in (clock, sys.modules["ddcnn.experiments.session"]):
        monkeypatch.setattr(module, "prepare", slowly)
    config = ddcnn.Config.parse(values)
    limit = 100.0 * (3 * 6 + 2) + 250  # six epochs of 3 steps, 2 steps of the DNN, and less than preparing takes
    assert ddcnn.plan(config, job="train", time_limit=limit).epochs == 5
    slept = 0.0
    ddcnn.train(config, time_limit=limit)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["epochs"] == 5


def test_the_schedule_is_that_of_the_epochs_that_fit(
    values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddcnn.experiments.trials.try_out", lambda work, careful: Trial(100.0, 0.0, None))
    notes: list[str] = []

    class Listening(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    # 3 steps of 100 s an epoch, 2 for the DNN; preparing has taken a part of the limit
    ddcnn.train(ddcnn.Config.parse(values), progress=Listening(), time_limit=100.0 * (3 * 6 + 2) + 250)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["epochs"] == 6
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["lr"][0] for row in rows if row["stage"] == "local"]
    assert len(rates) == 6
    assert rates[-1] < 0.05 * max(rates)  # the one cycle is complete
    assert any(note.startswith("plan 6 epochs fit: about 33 min") for note in notes)


def test_a_time_that_is_too_short_leaves_nothing(values: dict, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a time limit of .* is too short: preparing .*, and one epoch .* take .* here; give more"
    ):
        ddcnn.compare(ddcnn.Config.parse(values), time_limit=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_a_measured_plan_has_times_peaks_and_workers(values: dict) -> None:
    plan = ddcnn.plan(ddcnn.Config.parse(values), job="train")
    assert [stage.name for stage in plan.stages] == ["local", "dnn"]
    assert plan.seconds is not None
    assert 0 < plan.seconds < 5
    assert plan.peak is not None
    assert plan.peak > 2**27  # Python and PyTorch alone
    assert [one.workers for one in plan.workers if one.where == "elsewhere"] == [2, 4]
    assert json.loads(json.dumps(plan.to_json()))["stages"][0]["label"] == "local CNNs"


def test_folds_multiply(values: dict) -> None:
    values["data"] |= {"folds": [3, 2]}
    plan = ddcnn.plan(ddcnn.Config.parse(values), measure=False)
    assert plan.runs == 6
    one = replace(plan, runs=1, evaluation_seconds=1.0, stages=tuple(replace(s, seconds=1.0) for s in plan.stages))
    assert replace(one, runs=6).seconds == 6 * 6.0

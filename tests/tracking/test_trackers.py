"""TensorBoard and MLflow are told what metrics.jsonl holds, from wherever it was trained."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddcnn
from ddcnn.tracking import open_tracker
from ddcnn.tracking.tracker import Tracker, named_numbers
from ddcnn.training import Progress

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow and TensorBoard, and what they use


def config(out: Path, track: str | None, **sections: Any) -> ddcnn.Config:
    return ddcnn.Config.parse(
        {
            "model": {"name": "tests.strategies.tiny:tiny"},
            "training": {"epochs": 2, "batch_size": 20},
            "aggregation": {"epochs": 1, "hidden": [4]},
            "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
            "out": out,
            "track": track,
        }
        | sections
    )


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).integers(0, 150, (60, 8, 6)) + 100 * labels[:, None, None]
    return images.astype(np.uint8), labels


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def expected(run: Path) -> dict[tuple[str, int], float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {(name, row["epoch"]): value for row in rows for name, value in named_numbers(row).items()}
    for row in json.loads((run / "comparison.json").read_text())["strategies"]:
        found[f"results/{row['name']}/test_accuracy", 0] = row["test_accuracy"]
    return found


def in_tensorboard(folder: Path) -> dict[tuple[str, int], float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(folder), {"scalars": 0})
    seen.Reload()
    return {(name, one.step): one.value for name in seen.Tags()["scalars"] for one in seen.Scalars(name)}


def test_tensorboard(arrays: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'ddcnn[track]'")
    notes = Notes()
    ddcnn.train(config(tmp_path / "run", "tensorboard"), arrays, progress=notes)
    assert f"tracked: tensorboard --logdir {tmp_path / 'tensorboard'}" in notes.lines
    found = in_tensorboard(tmp_path / "tensorboard" / "run")
    for key, value in expected(tmp_path / "run").items():
        assert found[key] == pytest.approx(value, rel=1e-5)
    assert ("local/train_loss.3", 2) in found
    ddcnn.train(config(tmp_path / "run", "tensorboard", force=True), arrays)  # nothing of a tracker is in its way
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"run", "run-2"}


@pytest.mark.slow
def test_what_workers_train_is_tracked_too(arrays: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'ddcnn[track]'")
    images = arrays[0].repeat(2, 1).repeat(3, 2)  # what VGG9 needs; a network of the tests is none of a worker's
    np.savez(tmp_path / "d.npz", images=images, labels=arrays[1])
    compute = {"device": "cpu", "precision": "float32", "backend": "looped", "engine": "processes", "workers": 2}
    source = {"source": f"npz:{tmp_path / 'd.npz'}"}
    model = {"name": "vgg9", "width_factor": 0.02}
    ddcnn.train(config(tmp_path / "run", "tensorboard", compute=compute, data=source, model=model))
    found, told = in_tensorboard(tmp_path / "tensorboard" / "run"), expected(tmp_path / "run")
    assert {name.rpartition("/")[0] for name, _ in told if "subdomains" in name}
    for key, value in told.items():
        assert found[key] == pytest.approx(value, rel=1e-5)


def test_mlflow(arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = ("_MLFLOW_TELEMETRY_SESSION_ID", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE")
    for name in left:  # so that they are as before in the end
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    mlflow = pytest.importorskip("mlflow", reason="pip install 'ddcnn[track]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    notes = Notes()
    ddcnn.train(config(tmp_path / "run", "mlflow"), arrays, progress=notes)
    assert not [line for line in notes.lines if "tracking has ended" in line]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"  # nothing is told to its makers
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ddcnn").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["training.epochs"] == "2"
    for (name, epoch), value in expected(tmp_path / "run").items():
        history = {one.step: one.value for one in client.get_metric_history(run.info.run_id, name)}
        assert history[epoch] == pytest.approx(value)


@pytest.mark.parametrize("name", ["plain", "O'Brien", 'a "b"'])
def test_mlflow_goes_on_with_the_run_that_was_begun(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("_MLFLOW_TELEMETRY_SESSION_ID", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    mlflow = pytest.importorskip("mlflow", reason="pip install 'ddcnn[track]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for resuming in (False, True):
        tracker = open_tracker("mlflow")
        tracker.begin_run(tmp_path, name, config(tmp_path / name, "mlflow"), resuming=resuming)
        tracker.numbers({"x": 1.0}, 1)
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    assert len(client.search_runs([client.get_experiment_by_name("ddcnn").experiment_id])) == 1


class Failing(Tracker):
    def begin_run(self, place: Path, name: str, config: Any, *, resuming: bool) -> str:
        return "somewhere"

    def numbers(self, values: Any, epoch: int) -> None:
        raise OSError("no room")

    def end_run(self, *, complete: bool) -> None:
        raise AssertionError("a tracker that failed is asked no more")


def test_a_tracker_that_fails_ends_and_the_run_does_not(
    arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddcnn.experiments.session.open_tracker", lambda name: Failing())
    notes = Notes()
    ddcnn.train(config(tmp_path / "run", "mlflow"), arrays, progress=notes)
    assert [line for line in notes.lines if "track" in line] == [
        "tracked: somewhere",
        "tracking has ended: no room; metrics.jsonl has all epochs",
    ]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_missing_package_is_named_before_anything_is_made(
    arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ddcnn.DdcnnError, match=r"needs tensorboard: pip install 'ddcnn\[track\]'"):
        ddcnn.train(config(tmp_path / "run", "tensorboard"), arrays)
    assert not (tmp_path / "run").exists()


def test_a_progress_of_ones_own_hears_of_everything(arrays: Any, tmp_path: Path) -> None:
    class Watcher(Progress):
        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []
            self.results: dict[str, Any] = {}

        def epoch(self, row: dict[str, Any]) -> None:
            self.rows.append(row)

        def found(self, results: dict[str, Any]) -> None:
            self.results = results

    watcher = Watcher()
    run = ddcnn.train(config(tmp_path / "run", None), arrays, progress=watcher).run
    assert watcher.rows == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert watcher.results == json.loads((run / "comparison.json").read_text())

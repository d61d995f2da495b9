"""Worker processes: the same local CNNs as in one process, whatever happens to the workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import ddcnn
from ddcnn.cores import usable_cores
from ddcnn.engines import Engine, InProcess, Processes, task
from ddcnn.errors import DataError, EngineError, InterruptionError, TrainingError
from ddcnn.planning import Setup
from ddcnn.seeds import derive_seed
from ddcnn.strategies.local import LocalResult
from ddcnn.training import Progress, Workspace
from ddcnn.training.interruption import INTERRUPTION, listening
from tests.bars import write_bars
from tests.engines.conftest import SharedCluster
from tests.engines.on_ranks import ended, start
from tests.setups import decided, train_local


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with as many threads as a worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_bars(tmp_path_factory.mktemp("data"), (8, 12))


@pytest.fixture
def problem(source: str) -> Callable[..., Setup]:
    def make(model: str = "tiny", backend: str = "fused", **training: Any) -> Setup:
        compute = {"device": "cpu", "precision": "float32", "backend": backend, "group": 2}
        values = {
            "data": {"source": source},
            "decomposition": {"grid": "2x2"},
            "model": {"name": f"tests.engines.broken:{model}"},
            "training": {"epochs": 2, "batch_size": 20, "lr": 0.05, "shift": 1} | training,
            "compute": compute,
        }
        return decided(values)

    return make


def states(local: LocalResult) -> list[dict[str, torch.Tensor]]:
    return [local.network.member_state(n) for n in range(local.network.members)]


def same(a: LocalResult, b: LocalResult) -> bool:
    return all(torch.equal(x[name], y[name]) for x, y in zip(states(a), states(b), strict=True) for name in x) and [
        r["train_loss"] for r in a.history.rows
    ] == [r["train_loss"] for r in b.history.rows]


class Watcher(Progress):
    """Calls a function when a stage begins, and notes what is told."""

    def __init__(self, function: Callable[[str], None] = lambda stage: None) -> None:
        self.function, self.notes, self.stages = function, [], []

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.stages.append(stage)
        self.function(stage)

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_bit_equal_to_one_process(problem: Callable[..., Setup], tmp_path: Path) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    watcher = Watcher()
    with Processes(2, threads=1) as engine:
        workspace = Workspace(tmp_path, p.fingerprint)
        local = train_local(p, engine, watcher, workspace)
        assert sorted(watcher.stages) == ["local/subdomains 0-1", "local/subdomains 2-3"]
        again = train_local(p, engine, watcher, workspace)  # done once, never again
        assert len(watcher.stages) == 2
    assert not _children()
    assert same(local, expected)
    assert same(again, expected)
    assert not local.missing


def test_killed_workers_are_replaced(problem: Callable[..., Setup], tmp_path: Path) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    with Processes(1, threads=1) as engine:
        signals = {"local/subdomains 0-1": signal.SIGKILL, "local/subdomains 2-3": signal.SIGRTMIN + 6}
        watcher = Watcher(lambda stage: os.kill(_children()[0], signals.pop(stage)) if stage in signals else None)
        local = train_local(p, engine, watcher, Workspace(tmp_path, p.fingerprint))
    for name in ("SIGKILL", "40"):
        (note,) = (note for note in watcher.notes if f"its worker process ended with signal {name};" in note)
        assert "goes on from its last checkpoint" in note
    assert same(local, expected)


def test_a_subdomain_that_cannot_be_trained_is_missing(
    problem: Callable[..., Setup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    monkeypatch.setenv("BROKEN_SEED", str(derive_seed(0, "local", 2)))  # see tests/engines/broken.py
    watcher = Watcher()
    with Processes(2, threads=1, retries=0) as engine:
        local = train_local(p, engine, watcher, Workspace(tmp_path, p.fingerprint))
    assert local.missing == (2,)
    assert any("local/subdomains 2-3 failed: RuntimeError: broken by a test; see" in note for note in watcher.notes)
    assert any("subdomain 2 (rows 4..7, columns 0..5) is missing" in note for note in watcher.notes)
    for n in (0, 1):
        assert all(torch.equal(value, states(expected)[n][name]) for name, value in states(local)[n].items())
    assert local.history.best_epochs[2] == 0
    assert local.history.best_epochs[3] > 0


@pytest.fixture(params=["in_process", "processes"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with InProcess() if request.param == "in_process" else Processes(2, threads=1, retries=0) as made:
        yield made


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("RuntimeError", "RuntimeError: broken by a test; see"),
        ("AssertionError", "AssertionError: broken by a test; see"),
        ("MemoryError", "not enough memory: broken by a test"),
    ],
)
def test_what_a_network_raises_costs_its_subdomain_in_every_engine(
    problem: Callable[..., Setup],
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    reason: str,
) -> None:
    p = problem("late", "looped")
    expected = train_local(p, InProcess(), Progress())
    monkeypatch.setenv("BROKEN_SEED", str(derive_seed(0, "local", 2)))  # see tests/engines/broken.py
    monkeypatch.setenv("BROKEN_WITH", error)
    watcher = Watcher()
    local = train_local(p, engine, watcher, Workspace(tmp_path, p.fingerprint))
    assert local.missing == (2,)
    (note,) = (note for note in watcher.notes if "failed" in note)
    assert note.startswith(f"local/subdomains 2-3 failed: {reason}")
    if "; see" in note:
        assert "in _raise" in Path(note.rpartition("; see ")[2]).read_text()
    for n in (0, 1):
        assert all(torch.equal(value, states(expected)[n][name]) for name, value in states(local)[n].items())


@pytest.mark.parametrize(
    ("error", "message"), [("DataError", "broken by a test"), ("an assertion of ddcnn", "not.ddcnn:name")]
)
def test_what_is_not_of_one_task_ends_the_run_in_every_engine(
    problem: Callable[..., Setup],
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    message: str,
) -> None:
    p = problem("late", "looped")
    monkeypatch.setenv("BROKEN_SEED", str(derive_seed(0, "local", 2)))
    monkeypatch.setenv("BROKEN_WITH", error)
    with pytest.raises((DataError, EngineError, AssertionError), match=message):
        train_local(p, engine, Progress(), Workspace(tmp_path, p.fingerprint))


def test_nothing_could_be_trained(problem: Callable[..., Setup], tmp_path: Path) -> None:
    p = problem(lr=1e30)
    with Processes(2, threads=1) as engine, pytest.raises(TrainingError, match="became NaN or infinite in epoch 1"):
        train_local(p, engine, Progress(), Workspace(tmp_path, p.fingerprint))


def test_interrupted_and_resumed(problem: Callable[..., Setup], tmp_path: Path) -> None:
    p = problem(epochs=40)
    expected = train_local(p, InProcess(), Progress())
    workspace = Workspace(tmp_path, p.fingerprint)
    with listening(), Processes(2, threads=1) as engine:
        watcher = Watcher(lambda stage: INTERRUPTION.request(signal.SIGTERM))
        with pytest.raises(InterruptionError, match="SIGTERM"):
            train_local(p, engine, watcher, workspace)
    before = float((tmp_path / "local.seconds").read_text())
    with Processes(1, threads=1) as engine:
        resumed = train_local(p, engine, Progress(), workspace)
    assert same(resumed, expected)
    assert resumed.stage.seconds > resumed.stage.earlier_seconds == before > 0


def test_workers_end_with_their_parent(source: str, tmp_path: Path) -> None:
    options = ["--data", source, "--model", "tests.engines.broken:tiny", "--epochs", "5000", "--batch-size", "20",
               "--backend", "fused", "--precision", "float32", "--engine", "processes", "--workers", "1"]  # fmt: skip
    (parent,) = start(1, "-m", "ddcnn", "train", *options, "--out", str(tmp_path / "run"))
    parent.wait_for("local x4: epoch ")
    (pid,) = _children(parent.pid)
    parent.kill()
    ended([parent])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def test_a_step_without_end_ends_with_the_parent(tmp_path: Path) -> None:
    """It is asked to end first: a step that takes long still leaves its checkpoint."""
    code = """
import time, types
from ddcnn.engines import worker
from ddcnn.training.interruption import INTERRUPTION

def perform(*task):
    with INTERRUPTION.deferred():  # as within a step
        time.sleep(1000)

worker.GRACE = 1.0
worker.TaskPayload = types.SimpleNamespace(open=lambda path: None)
worker.perform = perform
worker.main()
"""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline())[0] == "ready"
        worker.stdin.write(json.dumps({"folder": str(tmp_path), "key": "", "payload": ""}) + "\n")
        worker.stdin.flush()
        time.sleep(0.5)
        assert worker.poll() is None
        worker.stdin.close()
        try:
            assert worker.wait(60) == 75
        finally:
            worker.kill()


def test_a_folder_is_needed(problem: Callable[..., Setup]) -> None:
    with Processes(1) as engine, pytest.raises(EngineError, match="leave their results in the folder of a run"):
        train_local(problem(), engine, Progress())


def test_cores_are_shared() -> None:
    cores = usable_cores()
    assert Processes().workers == cores
    assert Processes().threads == 1
    assert Processes(1).threads == cores
    assert Processes(4 * cores).threads == 1


def test_a_worker_calls_ddcnn_alone() -> None:
    assert task.find("ddcnn.strategies.local_task:train_group").__module__ == "ddcnn.strategies.local_task"
    with pytest.raises(AssertionError):
        task.find("os:system")


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_run_resumes(source: str, tmp_path: Path) -> None:
    options = ["--data", source, "--model", "tests.engines.broken:tiny", "--epochs", "150", "--batch-size", "20",
               "--backend", "fused", "--precision", "float32", "--engine", "processes", "--workers", "2"]  # fmt: skip
    out = tmp_path / "run"
    (process,) = start(1, "-m", "ddcnn", "train", *options, "--out", str(out))
    process.wait_for("local/subdomains 2-3")
    workers = _children(process.pid)
    assert len(workers) == 2
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    ((code, _, told),) = ended([process])
    assert code == 130
    assert time.monotonic() - begin < 5
    assert f"go on with: ddcnn train --resume {out}" in told
    assert not any(_parent(Path(f"/proc/{pid}")) == process.pid for pid in workers)
    before = len((out / "metrics.jsonl").read_text().splitlines())
    assert before > 0
    run = ddcnn.resume(out, trust=True, compute={"engine": "in_process"})
    assert (run.run / "manifest.json").is_file()


def _children(parent: int | None = None) -> list[int]:
    """Return the worker processes of a process, by default of this one."""
    found = (p for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) == (parent or os.getpid()))
    return [int(p.name) for p in found if b"ddcnn.engines.worker" in (p / "cmdline").read_bytes()]


def _parent(process: Path) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[1])


@pytest.fixture(scope="module")
def table(source: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Compare; return the files with parameters, and the rows of the table."""

    def compare(engine: str, *options: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("table") / engine
        command = ("-m", "ddcnn", "compare", "--data", source, "--model", "tests.strategies.tiny:tiny", "--epochs", "2",
                   "--batch-size", "20", "--backend", "fused", "--precision", "float32", "--device", "cpu", "--out",
                   str(out), "--engine", engine, "--set", "compute.group=2", "--set", "compute.threads=1")  # fmt: skip
        ((code, _, err),) = ended(start(1, *command, *options))
        assert code == 0, err
        rows = json.loads((out / "comparison.json").read_text())["strategies"]
        return {path.name: path.read_bytes() for path in out.rglob("*.safetensors")} | {
            row["name"]: [row[k] for k in sorted(row) if k.endswith(("accuracy", "auc", "f1"))] for row in rows
        }

    return cache(compare)


@pytest.mark.slow
def test_the_same_table_from_worker_processes(table: Callable[..., dict[str, Any]]) -> None:
    assert table("processes", "--workers", "2") == table("in_process")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
def test_the_same_table_from_a_cluster(table: Callable[..., dict[str, Any]], cluster: SharedCluster) -> None:
    assert table("ray", "--workers", "2", "--ray-address", cluster.address) == table("in_process")

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
from pathlib import Path
from typing import Any

import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.engines import InProcess, Processes, worker
from ddcnn.errors import EngineError, InterruptionError, TrainingError
from ddcnn.seeds import derive_seed
from ddcnn.strategies import LocalResult, Problem, prepare, resolve, train_local
from ddcnn.training import Progress, Workspace
from ddcnn.training.interruption import INTERRUPTION, listening
from tests.bars import write_bars


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
def problem(source: str) -> Callable[..., Problem]:
    def make(**training: Any) -> Problem:
        compute = {"device": "cpu", "precision": "float32", "backend": "fused", "group": 2}
        values = {
            "data": {"source": source},
            "decomposition": {"grid": "2x2"},
            "model": {"name": "tests.engines.broken:tiny"},
            "training": {"epochs": 2, "batch_size": 20, "lr": 0.05, "shift": 1} | training,
            "compute": compute,
        }
        return resolve(prepare(Config.parse(values)))[0]

    return make


def states(local: LocalResult) -> list[dict[str, torch.Tensor]]:
    return [local.network.member_state(n) for n in range(local.network.members)]


def same(a: LocalResult, b: LocalResult) -> bool:
    return all(torch.equal(x[name], y[name]) for x, y in zip(states(a), states(b), strict=True) for name in x) and [
        r["train_loss"] for r in a.history.rows
    ] == [r["train_loss"] for r in b.history.rows]


class EpochSelector(Progress):
    """Calls a function at the first sign of life of a worker, and notes what is told."""

    def __init__(self, function: Callable[[], None] = lambda: None) -> None:
        self.function, self.notes, self.stages = function, [], []

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.stages.append(stage)
        function, self.function = self.function, lambda: None
        function()

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_bit_equal_to_one_process(problem: Callable[..., Problem], tmp_path: Path) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    watch = EpochSelector()
    with Processes(2, threads=1) as engine:
        workspace = Workspace(tmp_path, p.fingerprint)
        local = train_local(p, engine, watch, workspace)
        assert sorted(watch.stages) == ["local/subdomains 0-1", "local/subdomains 2-3"]
        assert len(engine._running) == 2
        again = train_local(p, engine, watch, workspace)  # done once, never again
        assert len(watch.stages) == 2
    assert not engine._running
    assert same(local, expected)
    assert same(again, expected)
    assert not local.missing


def test_a_killed_worker_is_replaced(problem: Callable[..., Problem], tmp_path: Path) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    with Processes(1, threads=1) as engine:
        watch = EpochSelector(lambda: os.kill(engine._running[0]._process.pid, signal.SIGKILL))
        local = train_local(p, engine, watch, Workspace(tmp_path, p.fingerprint))
    assert any("its worker process ended with signal SIGKILL" in note for note in watch.notes)
    assert any("goes on from its last checkpoint" in note for note in watch.notes)
    assert same(local, expected)


def test_a_subdomain_that_cannot_be_trained_is_missing(
    problem: Callable[..., Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem()
    expected = train_local(p, InProcess(), Progress())
    monkeypatch.setenv("BROKEN_SEED", str(derive_seed(0, "local", 2)))  # see tests/engines/broken.py
    watch = EpochSelector()
    with Processes(2, threads=1, retries=0) as engine:
        local = train_local(p, engine, watch, Workspace(tmp_path, p.fingerprint))
    assert local.missing == (2,)
    assert any("local/subdomains 2-3 failed: RuntimeError: broken by a test; see" in note for note in watch.notes)
    assert any("subdomain 2 (rows 4..7, columns 0..5) is missing" in note for note in watch.notes)
    for n in (0, 1):
        assert all(torch.equal(value, states(expected)[n][name]) for name, value in states(local)[n].items())
    assert local.history.best_epochs[2] == 0
    assert local.history.best_epochs[3] > 0


def test_nothing_could_be_trained(problem: Callable[..., Problem], tmp_path: Path) -> None:
    p = problem(lr=1e30)
    with Processes(2, threads=1) as engine, pytest.raises(TrainingError, match="became NaN or infinite in epoch 1"):
        train_local(p, engine, Progress(), Workspace(tmp_path, p.fingerprint))


def test_interrupted_and_resumed(problem: Callable[..., Problem], tmp_path: Path) -> None:
    p = problem(epochs=40)
    expected = train_local(p, InProcess(), Progress())
    workspace = Workspace(tmp_path, p.fingerprint)
    with listening(), Processes(2, threads=1) as engine:
        watch = EpochSelector(lambda: INTERRUPTION.request(signal.SIGTERM))
        with pytest.raises(InterruptionError, match="SIGTERM"):
            train_local(p, engine, watch, workspace)
    before = float((tmp_path / "local.seconds").read_text())
    with Processes(2, threads=1) as engine:
        resumed = train_local(p, engine, Progress(), workspace)
    assert same(resumed, expected)
    assert resumed.stage.seconds > resumed.stage.earlier_seconds == before > 0


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; import time; from ddcnn.engines.processes import _Worker;"
        f"w = _Worker(1, Path({str(tmp_path / 'log')!r})); print(w._process.pid, flush=True);"
        "w._process.stdout.readline(); print('ready', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def test_a_folder_is_needed(problem: Callable[..., Problem]) -> None:
    with Processes(1) as engine, pytest.raises(EngineError, match="leave their results in the folder of a run"):
        train_local(problem(), engine, Progress())


def test_cores_are_shared() -> None:
    cores = len(os.sched_getaffinity(0))
    assert Processes().workers == cores
    assert Processes().threads == 1
    assert Processes(1).threads == cores
    assert Processes(4 * cores).threads == 1


def test_a_worker_calls_ddcnn_alone() -> None:
    assert worker.find("ddcnn.strategies.local:train_elsewhere").__module__ == "ddcnn.strategies.local"
    with pytest.raises(AssertionError):
        worker.find("os:system")


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_run_resumes(source: str, tmp_path: Path) -> None:
    options = ["--data", source, "--model", "tests.engines.broken:tiny", "--epochs", "150", "--batch-size", "20",
               "--backend", "fused", "--precision", "float32", "--engine", "processes", "--workers", "2"]  # fmt: skip
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "ddcnn", "train", *options, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "local/subdomains 2-3" in line:
            break
    workers = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) == process.pid]
    assert len(workers) == 2
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    assert process.wait() == 130
    assert time.monotonic() - start < 5
    assert f"go on with: ddcnn train --resume {out}" in told
    assert not any(_parent(Path(f"/proc/{pid}")) == process.pid for pid in workers)
    process.stderr.close()
    before = len((out / "metrics.jsonl").read_text().splitlines())
    assert before > 0
    run = ddcnn.resume(out, trust=True, compute={"engine": "in_process"})
    assert (run.run / "manifest.json").is_file()


def _parent(process: Path) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_the_same_table_in_every_engine(source: str, tmp_path: Path, engine: str) -> None:
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("the extra ray is not installed")
    files = []
    for name in ("in_process", engine):
        options = ["--data", source, "--model", "tests.strategies.tiny:tiny", "--epochs", "2", "--batch-size", "20",
                   "--backend", "fused", "--precision", "float32", "--device", "cpu", "--out", str(tmp_path / name),
                   "--engine", name, "--set", "compute.group=2", "--set", "compute.threads=1"]  # fmt: skip
        workers = [] if name == "in_process" else ["--workers", "2"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "ddcnn", "compare", *options, *workers], check=True, env=environment, timeout=200
        )
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.safetensors")})
        rows = json.loads((tmp_path / name / "comparison.json").read_text())["strategies"]
        files[-1] |= {
            row["name"]: [row[k] for k in sorted(row) if k.endswith(("accuracy", "auc", "f1"))] for row in rows
        }
    assert files[0] == files[1]

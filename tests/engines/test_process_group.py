"""Ranks come together, share the cores, and end together with one message."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch

import ddcnn
from ddcnn.engines import ALONE, LauncherEnvironment, check_alone, joined, refuse_ranks
from ddcnn.errors import ConfigError
from tests.engines.on_ranks import ended, launch, start

ENVIRONMENT = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
TRAIN = ("-m", "ddcnn", "train", "--strategy", "coherent", "--device", "cpu", "--precision", "float32", "--quiet")
FAILING = ("--backend", "looped", "--model", "tests.engines.failing:network", "--batch-size", "4", "--epochs", "9")


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_place() -> None:
    assert (
        LauncherEnvironment.of({})
        == LauncherEnvironment.of({"WORLD_SIZE": "1", "RANK": "0"})
        == LauncherEnvironment(0, 1, 0, 1)
    )
    assert LauncherEnvironment.of(ENVIRONMENT) == LauncherEnvironment(3, 8, 3, 8)
    assert LauncherEnvironment.of(ENVIRONMENT | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == LauncherEnvironment(
        3, 8, 1, 2
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "", "MASTER_PORT": ""}, "WORLD_SIZE is 8, but RANK, MASTER_PORT is not set; start with torchrun"),
        ({"RANK": "8"}, "ranks should count from 0 and stay below their number, got RANK=8, WORLD_SIZE=8, "),
        ({"RANK": "x"}, "got RANK=x, WORLD_SIZE=8, LOCAL_RANK=x, LOCAL_WORLD_SIZE=8; start with torchrun"),
        ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "got RANK=3, WORLD_SIZE=8, LOCAL_RANK=2, LOCAL_WORLD_SIZE=2"),
    ],
)
def test_a_launcher_that_says_nonsense(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        LauncherEnvironment.of(ENVIRONMENT | changes)


def test_one_process_is_alone() -> None:
    with joined("cuda:3") as ranks:
        assert ranks is ALONE
    refuse_ranks("compare")
    check_alone(ranks, "strategy local")


def outcomes_of(*command: str, **environment: str) -> tuple[list[tuple[int, str, str]], list[str]]:
    """Run two ranks; return how each ended, and the lines of errors of both, the one that says why it ended first."""
    outcomes = ended(start(2, *command, **environment))
    return outcomes, [line for _, _, err in outcomes for line in err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("how", "codes", "expected"),
    [
        ("error", [2, 2], r"error: rank 1 of 2: image 7 cannot be read"),
        ("kill", [2, -9], r"error: rank 0 of 2: another rank is gone \(killed, or its machine or network failed\) or "
         r"did not answer within 600 seconds; what was done is in the run's checkpoints: resume it"),
        ("bug", [2, 2], r"error: rank 1 of 2: KeyError: 'a bug' \(.*failing\.py, line \d+\)"),
    ],
)  # fmt: skip
def test_a_rank_that_ends_ends_the_others(
    source: str, tmp_path: Path, how: str, codes: list[int], expected: str
) -> None:
    begin = time.perf_counter()
    command = (*TRAIN, *FAILING, "--data", source, "--out", str(tmp_path / "run"))
    outcomes, errors = outcomes_of(*command, HOW_TO_END=how)
    assert time.perf_counter() - begin < 240  # and not the ten minutes of a timeout
    assert [code for code, _, _ in outcomes] == codes, outcomes
    (line,) = errors
    assert re.fullmatch(expected, line)
    assert not (tmp_path / "run" / "manifest.json").exists()


REFUSED = {
    "compare": (
        ("-m", "ddcnn", "compare", "--quiet"),
        r"compare is not spread over ranks, but 2 were started; start it without torchrun, or use train --strategy "
        "coherent",
    ),
    "fewer subdomains": ((*TRAIN, "--grid", "1x1"), "2 ranks cannot share 1 subdomains; start at most 1 ranks"),
    "one device": (
        (*TRAIN, "--device", "cuda:1"),
        r"--device 'cuda:1' is one device for all ranks; use cuda: each takes its own",
    ),
}


@pytest.mark.parametrize(("command", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_said_once(source: str, tmp_path: Path, command: tuple[str, ...], message: str) -> None:
    outcomes, errors = outcomes_of(*command, "--data", source, "--out", str(tmp_path / "run"))
    assert [code for code, _, _ in outcomes] == [2, 2], outcomes
    assert not (tmp_path / "run").exists()
    (line,) = errors
    assert re.fullmatch(f"error: rank [01] of 2: {message}", line)


# Two seconds less for a program that does not train.
SPARING = "from ddcnn.engines import joined, process_group as g; g._import_what_would_hold_the_group = lambda: None\n"
JOIN = """
import sys, torch
from ddcnn.engines import joined
before = torch.get_num_threads()
with joined() as ranks:
    within = torch.get_num_threads()
    ranks.same("numbers", bytes(32))
    try:
        ranks.same("numbers", bytes([0 if sys.argv[1] == "equal" else ranks.rank]) * 32)
    except ValueError as error:
        print(error)
print(before, within, torch.get_num_threads(), ranks.line(5), sep="; ")
"""


@pytest.mark.parametrize("given", [True, False])
def test_the_ranks_of_a_machine_share_its_cores(*, given: bool) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    outcomes = ended(launch(2, "-c", SPARING + JOIN, "equal", OMP_NUM_THREADS=str(cores) if given else ""))
    lines = [out.split("; ") for _, out, _ in outcomes]
    assert lines[0][0] == lines[0][2]
    assert int(lines[0][1]) == (cores if given else max(1, cores // 2))
    assert lines[0] == lines[1]
    assert lines[0][3] == "2 over gloo, of which each owns 3 or 2 of 5 subdomains\n"


def test_ranks_that_were_started_in_different_ways_are_told_so() -> None:
    outcomes = ended(start(2, "-c", JOIN, "different"))
    assert [code for code, _, _ in outcomes] == [0, 0]
    assert "numbers differ" not in outcomes[0][1]
    assert outcomes[1][1].startswith("numbers differ from those of rank 0; start all ranks with the same command and d")


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains(source: str, tmp_path: Path) -> None:
    """Float32 rounds differently; on these few images no decision hangs on that."""
    options = ("--backend", "fused", "--model", "tests.strategies.tiny:tiny", "--batch-size", "16", "--epochs", "2")
    options += ("--data", source, "--set", "training.shift=1", "--lr", "0.0003")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    (spread,) = ended(launch(1, *torchrun, *TRAIN, *options, "--out", str(tmp_path / "ranks")))
    (alone,) = ended(start(1, *TRAIN, *options, "--out", str(tmp_path / "alone")))
    assert (spread[0], alone[0]) == (0, 0), (spread, alone)
    tables = [re.sub(r" *[\d.]+ +│ +[\d.]+ +│ +\d+ +│\n└.*", "", out, flags=re.S) for _, out, _ in (spread, alone)]
    assert tables[0] == tables[1]  # shown once, and but for time and memory equal
    rows, metrics, networks = zip(*(_read(tmp_path / name) for name in ("ranks", "alone")), strict=True)
    assert rows[0] == rows[1]
    assert 0.4 < rows[0]["test_accuracy"] < 1.0
    for mine, other in zip(*metrics, strict=True):
        assert mine.keys() == other.keys()
        for name in mine.keys() - {"seconds", "stage"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-3), name
    torch.testing.assert_close(*networks, rtol=1e-3, atol=1e-4)
    details = json.loads((tmp_path / "ranks" / "comparison.json").read_text())["details"]
    assert details["choices"]["ranks"] == "2 over gloo, of which each owns 2 of 4 subdomains"


def _read(run: Path) -> tuple[dict, list[dict], dict[str, torch.Tensor]]:
    (row,) = json.loads((run / "comparison.json").read_text())["strategies"]
    names = ("name", "train_accuracy", "validation_accuracy", "test_accuracy", "test_auc", "parameters", "epochs")
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v[0] if isinstance(v, list) else v for k, v in epoch.items()} for epoch in metrics]
    state = ddcnn.load(run, trust=True).unfused_state()
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    return {name: row[name] for name in names}, metrics, state


@pytest.mark.slow
def test_the_one_thread_that_torchrun_sets_is_not_the_users(tmp_path: Path) -> None:
    file = tmp_path / "who.py"
    file.write_text(
        "import sys, torch\n" + SPARING + "g.usable_cores = lambda: 6\n"
        "with joined('cpu'):\n"
        "    sys.stdout.write(f'{torch.get_num_threads()}\\n')\n"  # one write: both ranks share a pipe
    )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file))
    outcomes = [ended(launch(1, *torchrun, OMP_NUM_THREADS=given))[0] for given in ("", "1")]
    assert [(code, out) for code, out, _ in outcomes] == [(0, f"{threads}\n" * 2) for threads in (3, 1)], outcomes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
@pytest.mark.parametrize("replicas", [1, 2])
def test_no_thread_stays_behind(replicas: int) -> None:
    # one that outlives the interpreter aborts the process, now and then
    script = (
        "import glob; from pathlib import Path; import torch; from ddcnn.engines import joined\n"
        "def names(): return sorted({Path(p).read_text().strip() for p in glob.glob('/proc/self/task/*/comm')})\n"
        f"with joined('cpu', {replicas}) as ranks:\n"
        "    ranks.all_sum(torch.ones(1)); torch.nn.Linear(2, 2).to('meta')(torch.empty(1, 2, device='meta'))\n"
        "    torch.optim.SGD([torch.zeros(1, requires_grad=True)]); print(names())\n"
        "print(names())\n"
    )
    for rank, (code, out, err) in enumerate(ended(launch(2, "-c", script))):
        assert code == 0, err
        during, after = out.splitlines()
        assert "gloo" in during
        assert ("tcpstore" in during) == (rank == 0)
        assert "gloo" not in after
        assert "tcpstore" not in after


def test_what_one_rank_alone_finds_is_said_once(source: str, tmp_path: Path) -> None:
    # rank 0 tries a step to decide on precision and backend, while rank 1 waits for it in the group
    patient = (
        "from ddcnn.engines import process_group; process_group._SEEING_OFF = 120; from ddcnn.cli import main; main()"
    )
    command = ("-c", patient, *TRAIN[2:], *FAILING, "--data", source, "--out", str(tmp_path / "run"))
    begin = time.perf_counter()
    outcomes, errors = outcomes_of(*command, HOW_TO_END="first alone")
    assert time.perf_counter() - begin < 100  # rank 1 came to know at once, and did not wait for rank 0 to be gone
    assert [code for code, _, _ in outcomes] == [2, 2], outcomes
    assert errors == ["error: rank 0 of 2: image 7 cannot be read"]

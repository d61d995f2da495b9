"""Ranks that Ray Train starts train what those of torchrun train, and start anew when one dies."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import torch

import ddcnn
from tests.engines.conftest import SharedCluster
from tests.engines.on_ranks import RAY, ended, start
from tests.forked import Program

pytest.importorskip("ray.train", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

TRAIN = ("-m", "ddcnn", "train", "--strategy", "coherent", "--device", "cpu", "--precision", "float32", "--quiet")
NETWORK = ("--backend", "looped", "--model", "tests.engines.failing:network", "--batch-size", "4", "--epochs", "2")
SECONDS = 300
ON_RAY = ("--engine", "ray", "--workers", "2", "--set", "compute.threads=1")
NO_RANK = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), "")


def on_ray(source: str, out: Path, *options: str) -> Program:
    """Train over two ranks that Ray Train starts, on a cluster of its own unless there is an address."""
    command = (*TRAIN, *NETWORK, *ON_RAY, "--data", source, "--out", str(out), *options)
    return start(1, *command, **NO_RANK, **RAY)[0]


def ends(how: str) -> tuple[str, str]:
    """Return the options of a training that ends in this way."""
    return ("--set", f"model.options.how={how}")


def at(cluster: SharedCluster) -> tuple[str, str]:
    """Return the options of a training on a cluster that is there."""
    return ("--ray-address", cluster.address)


def state(run: Path) -> dict[str, torch.Tensor]:
    """Return what a run has trained."""
    return ddcnn.load(run, "coherent", trust=True).unfused_state()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    """A source, and what two ranks of torchrun make of it."""
    from tests.bars import write_bars

    folder = tmp_path_factory.mktemp("torchrun")
    source = write_bars(folder, (12, 16))
    outcomes = ended(start(2, *TRAIN, *NETWORK, "--data", source, "--out", str(folder / "run")))
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    return source, state(folder / "run")


def test_the_same_bits_as_torchrun_and_a_rank_that_is_killed_costs_a_new_start_alone(
    expected: tuple[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """On a cluster that the run starts, which has no core more than the ranks need."""
    source, trained = expected
    run, mark = tmp_path / "run", tmp_path / "killed"
    ((code, out, err),) = ended([on_ray(source, run, *ends(f"kill once {mark}"))], SECONDS)
    assert mark.exists()
    assert code == 0, err
    assert "coherent" in out  # shown by who asked for it
    torch.testing.assert_close(state(run), trained, rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "run"]  # Ray Train's notes are gone


def test_an_error_of_a_rank_ends_all_with_its_message(
    expected: tuple[str, dict[str, torch.Tensor]], cluster: SharedCluster, tmp_path: Path
) -> None:
    ((code, _, err),) = ended([on_ray(expected[0], tmp_path / "run", *at(cluster), *ends("error"))], SECONDS)
    assert code == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: rank 1: image 7 cannot be read"]


def test_a_signal_ends_all_ranks_and_the_run_goes_on(
    expected: tuple[str, dict[str, torch.Tensor]], cluster: SharedCluster, tmp_path: Path
) -> None:
    source, trained = expected
    run, mark = tmp_path / "run", tmp_path / "quick"
    process = on_ray(source, run, *at(cluster), *ends(f"slow until {mark}"))
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/coherent-*/*.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ((code, _, err),) = ended([process], SECONDS)
    assert code == 75, err
    assert "interrupted" in err
    assert "go on with: ddcnn train --resume" in err
    mark.touch()
    resume = ("-m", "ddcnn", "train", "--resume", str(run), "--trust", "--quiet")
    (process,) = start(1, *resume, **NO_RANK, **RAY)
    ((code, _, err),) = ended([process], SECONDS)
    assert code == 0, err
    torch.testing.assert_close(state(run), trained, rtol=0, atol=0)

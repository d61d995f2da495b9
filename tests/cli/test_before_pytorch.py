"""Threads that wait sleep beside other programs, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ddcnn
from ddcnn.cli import before_pytorch
from ddcnn.cli.before_pytorch import let_threads_sleep

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Return the policy that is set on a machine where others keep so many cores busy."""
    for name in NAMES:
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)

    def decided(others: float | None, *, loaded: tuple[str, ...] = (), **environment: str) -> str | None:
        monkeypatch.setattr(before_pytorch, "busy_with_others", lambda: others)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        let_threads_sleep(loaded)
        return os.environ.get("OMP_WAIT_POLICY")

    return decided


@pytest.mark.parametrize(("others", "expected"), [(0.0, None), (0.4, None), (None, None), (0.5, "passive")])
def test_beside_others_threads_sleep(policy: Callable, others: float | None, expected: str | None) -> None:
    assert policy(others) == expected


def test_what_the_user_has_set_stays(policy: Callable) -> None:
    assert policy(2.0, OMP_WAIT_POLICY="active") == "active"
    assert policy(2.0, OMP_WAIT_POLICY="", GOMP_SPINCOUNT="1000") == ""
    assert policy(2.0, GOMP_SPINCOUNT="", KMP_BLOCKTIME="0") == ""


def test_it_would_be_of_no_use(policy: Callable) -> None:
    assert policy(2.0, loaded=("torch",)) is None  # which has read it already
    assert policy(2.0, OMP_NUM_THREADS="1") is None


COMMANDS = """
import sys
from ddcnn.cli import evaluate, experiment, explain, main, predict, run_commands

class Asked(BaseException):
    pass

def ask():
    raise Asked

for module in (evaluate, experiment, explain, predict, run_commands):
    module.let_threads_sleep = ask
for line in ("compare", "train", "evaluate r", "predict r a.png b.png", "explain r a.png", "experiment strategies"):
    try:
        main(line.split())
    except Asked:
        print(line.split()[0], "torch" in sys.modules)
"""


def test_every_command_that_computes_decides_it_before_pytorch_is_loaded() -> None:
    paths = {"PYTHONPATH": str(Path(ddcnn.__file__).parents[1])}
    said = subprocess.run(
        [sys.executable, "-c", COMMANDS], env=os.environ | paths, capture_output=True, text=True, check=True
    ).stdout
    commands = ("compare", "train", "evaluate", "predict", "explain", "experiment")
    assert said.splitlines() == [f"{name} False" for name in commands]

"""A coherent model over ranks that is interrupted goes on: on as many ranks bit for bit, on others within rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ddcnn
from ddcnn.training.checkpoint import unpacked
from tests.engines.on_ranks import ended, start

pytestmark = pytest.mark.slow
TRAIN = ("-m", "ddcnn", "train", "--strategy", "coherent", "--device", "cpu", "--precision", "float32", "--quiet")
OPTIONS = ("--backend", "looped", "--model", "tests.engines.failing:network", "--batch-size", "8", "--epochs", "3")


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def rows(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def interrupted(source: str, run: Path, *options: str) -> None:
    """Begin a run over 2 ranks, of which one is sent SIGTERM in the second epoch."""
    command = (*TRAIN, *OPTIONS, *options, "--data", source, "--out", str(run))
    outcomes = ended(start(2, *command, HOW_TO_END="signal"))
    assert [code for code, _, _ in outcomes] == [75, 75], outcomes
    assert outcomes[0][2] == f"go on with: ddcnn train --resume {run}\ninterrupted\n"
    assert outcomes[1][2] == ""
    newest = max(run.glob("checkpoints/coherent-*/*.safetensors"))
    assert unpacked(newest.read_bytes(), newest).numbers["done"] > 0  # not that of the epoch before
    assert not (run / "manifest.json").exists()


def test_on_as_many_ranks_it_ends_bit_equal(source: str, tmp_path: Path) -> None:
    dropout = ("--set", "model.options.dropout=0.3")
    interrupted(source, tmp_path / "run", *dropout)
    resumed = ended(start(2, "-m", "ddcnn", "train", "--resume", str(tmp_path / "run"), "--trust", "--quiet"))
    whole = ended(start(2, *TRAIN, *OPTIONS, *dropout, "--data", source, "--out", str(tmp_path / "whole")))
    assert [code for code, _, _ in (*resumed, *whole)] == [0] * 4, (resumed, whole)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    a, b = ((tmp_path / name / "coherent.safetensors").read_bytes() for name in ("run", "whole"))
    assert a == b


def test_on_another_number_of_ranks_it_ends_equal(source: str, tmp_path: Path) -> None:
    interrupted(source, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "three")
    resumed = ended(start(3, "-m", "ddcnn", "train", "--resume", str(tmp_path / "three"), "--trust", "--quiet"))
    assert [code for code, _, _ in resumed] == [0, 0, 0], resumed
    config = ddcnn.Config.read(tmp_path / "run" / "config.yaml", {"out": str(tmp_path / "whole")})
    ddcnn.resume(tmp_path / "run", trust=True)
    ddcnn.train(config)
    expected = load_file(tmp_path / "whole" / "coherent.safetensors")
    for name in ("run", "three"):
        found = load_file(tmp_path / name / "coherent.safetensors")
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        for mine, other in zip(rows(tmp_path / name), rows(tmp_path / "whole"), strict=True):
            assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3, abs=1e-5)
    details = json.loads((tmp_path / "three" / "comparison.json").read_text())["details"]
    assert details["choices"]["ranks"] == "3 over gloo, of which each owns 2 or 1 of 4 subdomains"

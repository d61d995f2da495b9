"""A set of 2 GB is prepared, and a part of it trained from there, in far less memory.

`benchmarks/store.py --gigabytes 20` does it with 20 GB, and trains all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = "tests.data.store.large:volumes"
N = 1908  # volumes of 2^20 voxels: 2.0 GB
LIMIT = 0.85e9

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in other units"),
]


def peak_of(*arguments: str) -> int:
    """Run the command line; return the largest resident memory of its process, in bytes."""
    code = "import sys; from benchmarks.common import watched; print(watched(sys.argv[1:])[1])"
    command = [sys.executable, "-c", code, sys.executable, "-m", "ddcnn", *arguments, "--quiet"]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    # from a small process: the kernel counts what the one that starts a program held when it did
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 4e9:
        pytest.skip("less than 4 GB of free disk")
    store, run = tmp_path / "s.zarr", tmp_path / "run"
    peak = peak_of("data", "prepare", SOURCE, str(store), "--grid", "2x2x1")
    assert peak < LIMIT
    options = "--strategy local --model tests.strategies.tiny:tiny --grid 2x2x1 --epochs 1 --batch-size 4 --memory 1GB"
    options += " --precision float32 --set model.width_factor=0.25"
    options += " --set data.limit_train=200 --set data.limit_val=50 --set data.limit_test=50"
    peak = peak_of("train", "--data", f"zarr:{store}", *options.split(), "--out", str(run))
    assert peak < LIMIT
    results = json.loads((run / "comparison.json").read_text())
    assert results["details"]["samples"] == {"train": 200, "validation": 50, "test": 50}
    assert "images streamed" in results["details"]["choices"]["memory"]
    shutil.rmtree(store)

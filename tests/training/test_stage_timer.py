"""Stages measure time and memory."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from ddcnn.machine import return_freed_memory
from ddcnn.training import StageTimer, peak_of_process

CPU = torch.device("cpu")


def test_seconds() -> None:
    with StageTimer("nap", CPU) as stage:
        time.sleep(0.02)
    assert 0.02 <= stage.seconds < 2
    assert (stage.name, stage.epochs, stage.critical_path_seconds) == ("nap", 0, None)


def test_seconds_of_a_failure() -> None:
    stage = StageTimer("failure", CPU)
    with pytest.raises(RuntimeError, match="on purpose"), stage:
        raise RuntimeError("on purpose")
    assert stage.seconds > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_peak_memory_of_a_stage_forgets_earlier_ones() -> None:
    def peak(megabytes: int) -> int | None:
        with StageTimer("memory", CPU) as stage:
            torch.ones(megabytes * 2**18).sum()
        return stage.peak_memory_bytes

    before, large = peak(1), peak(200)
    return_freed_memory()  # if tests before this one left a hole of 200 MB, the C library keeps it
    after = peak(1)
    if before is None or large is None or after is None:
        pytest.skip("this kernel does not let a process reset its peak")
    assert large - before > 150 * 2**20
    assert large - after > 150 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_the_peak_of_the_process_outlives_a_stage() -> None:
    torch.ones(200 * 2**18).sum()
    whole = peak_of_process()
    with StageTimer("memory", CPU) as stage:
        torch.ones(2**18).sum()
    if whole is None or stage.peak_memory_bytes is None:
        pytest.skip("this kernel does not let a process reset its peak")
    assert (peak_of_process() or 0) >= whole > stage.peak_memory_bytes + 100 * 2**20

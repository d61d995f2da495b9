"""The machine in words."""

from __future__ import annotations

import ctypes
import platform
import sys
import time

import pytest
import torch

from ddcnn import machine
from ddcnn.machine import device_name, processor, resident_memory, staying_below


def test_the_processor_has_a_name() -> None:
    assert processor() == device_name(torch.device("cpu"))
    assert processor() or not platform.processor()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_has_a_name() -> None:
    assert device_name(torch.device("cuda")) == torch.cuda.get_device_name()


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc"
)
def test_near_the_limit_freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 MB in small pieces, of which one is still in use: glibc keeps them all."""
    monkeypatch.setattr(machine, "_LOOK", 0.01)
    pieces = [bytes(50_000) for _ in range(4_000)]
    last = pieces[-1]
    pieces.clear()
    kept = resident_memory()
    with staying_below(2 * kept):
        time.sleep(0.2)
    assert resident_memory() > kept - 5e7
    with staying_below(kept):
        deadline = time.monotonic() + 10
        while resident_memory() > kept - 1.5e8 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert resident_memory() < kept - 1.5e8
    assert len(last) == 50_000

"""Every test leaves the process as it found it."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: at the end, one core would wait for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collections: each measurement of memory begins with a whole one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves threads, files, environment variables or settings of torch behind."""
    before = _state()
    yield
    for thread in threading.enumerate():
        if f"thread {thread.name}" not in before:
            thread.join(2)  # it may have been told to stop, and just not have come to it
    after = _state()
    rng = before.pop("random numbers"), after.pop("random numbers")
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"the test changed {', '.join(changed)}"  # names only: values may be secret
    if not torch.equal(*rng):
        torch.set_rng_state(rng[0])
        pytest.fail("the test changed torch's global random state; draw from a generator, or ask for 'seeded'")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep measurements of the tests out of the user's cache folder."""
    if "DDCNN_DATA" not in os.environ:
        monkeypatch.setenv("DDCNN_DATA", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def without_dice() -> Iterator[None]:
    """Beartype draws from Python's generator to choose what it checks, and what draws is not replayed."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def seeded(leaves_nothing: None) -> Iterator[None]:
    """Let a test draw from torch's global generator, seeded with 0, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _state() -> dict[str, Any]:
    # set by pytest itself, and by scikit-learn and torch when parts of them are first imported
    ignored = ("PYTEST_", "KMP_", "TORCHINDUCTOR_")
    return {
        **{f"${name}": value for name, value in os.environ.items() if not name.startswith(ignored)},
        **{f"file {path.name}": True for path in Path.cwd().iterdir() if not path.name.startswith((".", "__"))},
        **{f"thread {thread.name}": True for thread in threading.enumerate()},
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "random numbers": torch.get_rng_state(),
    }

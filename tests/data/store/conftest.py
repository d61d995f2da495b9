"""Stores of small data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddcnn.data import Dataset
from ddcnn.data.store import Store, Stored, write_store
from ddcnn.data.store import write as write_module
from ddcnn.decomposition import Grid


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a block have three samples, so that a few samples are several blocks."""
    monkeypatch.setattr(write_module, "_MOST_SAMPLES", 3)


@pytest.fixture
def made(tmp_path: Path, small_blocks: None) -> Callable[..., Stored]:
    """Write a store of a data set, and open its images."""

    def make(dataset: Dataset, grid: Grid, name: str = "s.zarr") -> Stored:
        write_store(dataset, tmp_path / name, grid, workers=1)
        return Stored(Store(tmp_path / name))

    return make


@pytest.fixture
def zarr_python() -> Iterator[object]:
    """Provide the reference implementation, and end the threads that it starts."""
    import zarr
    from zarr.core.sync import cleanup_resources

    yield zarr
    cleanup_resources()

"""A small run whose local CNNs others begin with, and configurations of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ddcnn
from ddcnn.config import Config
from tests.bars import write_bars
from tests.strategies.tiny import BASE


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_bars(tmp_path_factory.mktemp("data"), (8, 12))


@pytest.fixture
def values(source: str) -> Callable[..., dict[str, Any]]:
    def make(**sections: Any) -> dict[str, Any]:
        found = {"data": {"source": source}, **BASE}
        for name, section in sections.items():
            found[name] = {**found.get(name, {}), **section} if isinstance(section, dict) else section
        return found

    return make


@pytest.fixture(scope="module")
def run(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of three classes with local CNNs."""
    out = tmp_path_factory.mktemp("run") / "r"
    ddcnn.train(Config.parse({"data": {"source": source}, **BASE, "out": out}))
    return out

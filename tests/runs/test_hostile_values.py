"""Whatever a stranger writes into a run and seals, only errors of ours come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ddcnn
from ddcnn.errors import DdcnnError
from ddcnn.report import write_report
from ddcnn.report.read import read_run
from ddcnn.runs.folder import RunFolder
from tests.runs.edits import change

_SCALARS = st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats() | st.text(max_size=4)
_VALUES = st.recursive(
    _SCALARS | st.sampled_from([10**400, "../x", "vote", "1e999", 10**9, -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries)[:4]:
        yield from _places(inner, (*path, key))


def _set(value: Any, path: tuple, new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _set(value[path[0]], path[1:], new)
    return copy


READERS = {
    "config.yaml": lambda path: ddcnn.load(path, "cnn-dnn"),
    "data.json": lambda path: ddcnn.load(path, "cnn-dnn"),
    "comparison.json": ddcnn.load,
    "split.json": ddcnn.evaluate,
    "environment.json": read_run,
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_anywhere(finished: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    copy = tmp_path / "fuzz"
    if not copy.exists():
        shutil.copytree(finished, copy)
    original = (finished / name).read_text()
    values = yaml.safe_load(original) if name.endswith(".yaml") else json.loads(original)
    changed = _set(values, data.draw(st.sampled_from(list(_places(values)))), data.draw(_VALUES))
    (copy / name).write_text(yaml.safe_dump(changed) if name.endswith(".yaml") else json.dumps(changed))
    RunFolder(copy).seal()
    for read in (READERS[name], read_run):
        assert "\n" not in _said(read, copy)


DRAWN = [
    ("strategies", 0, "test_accuracy", None),
    ("strategies", 0, "seconds", 1e15),
    ("strategies", 0, "parameters", 1e15),
    ("strategies", 0, "name", "$\\frac{$<script>\x00"),
    ("subdomains", 0, "box", [[0, 10**12], [0, 10**12]]),
    ("subdomains", 0, "index", 10**30),
    ("grid", [10**9, 10**9]),
    ("details", "samples", {"test": 0}),
    ("details", "classes", ["x" * 10**5] * 3),
    ("details", "confusion", {"transfer": [[10**15] * 3] * 3}),
    ("details", "mistakes", "$\\frac{$<script>\x00"),
    ("details", "plane", [0, 0]),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("path", DRAWN, ids=map(str, range(len(DRAWN))))
def test_a_report_of_anything(run: RunFolder, path: tuple) -> None:
    *place, value = path
    change(run, "comparison.json", lambda values: _set(values, tuple(place), value))
    assert "\n" not in _said(write_report, run.path)
    assert "<script>" not in (run.path / "report.html").read_text()


def _said(read: Callable[[Path], object], run: Path) -> str:
    try:
        read(run)
    except DdcnnError as error:
        return str(error)
    return ""

"""Whatever may be the name of a class when data are read, a run with it can be loaded, evaluated and shown."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ddcnn
from ddcnn.cli import main
from ddcnn.config import Config
from ddcnn.runs import RunFolder
from ddcnn.text import name_fault, printable

ODD = ("\u3000a", "a\xa0b", "\u0645\u06cc\u200c\u062e", "\u200db", "so\xadft", "two\nlines", "\x1b[2Jesc", "\u202egnp")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on eight classes with odd names."""
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    classes = np.array(ODD)
    images = rng.integers(0, 256, (80, 6, 6), dtype=np.uint8)
    np.savez(folder / "d.npz", images=images, labels=np.arange(80) % 8, classes=classes)
    values = {
        "data": {"source": f"npz:{folder / 'd.npz'}"},
        "decomposition": {"grid": "1x2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1, "batch_size": 16},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": folder / "run",
    }
    return ddcnn.train(Config.parse(values)).run


def test_odd_names_go_through(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = json.loads((run / "data.json").read_text())["classes"]
    ddcnn.load(run, trust=True)
    assert list(ddcnn.evaluate(run, trust=True)["classes"]) == names
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run), "--trust"])
    assert stop.value.code == 0
    assert "\x1b" not in capsys.readouterr().out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), min_size=8, max_size=8, unique=True))
def test_one_rule_for_names(run: Path, names: list[str]) -> None:
    path = run / "data.json"
    before = path.read_text()
    data = json.loads(before)
    try:
        data["classes"] = data["input"]["classes"] = names
        path.write_text(json.dumps(data))
        RunFolder(run).seal()
        if any(map(name_fault, names)):
            with pytest.raises(ddcnn.DdcnnError, match="cannot be used"):
                ddcnn.load(run, trust=True)
        else:
            ddcnn.load(run, trust=True)
    finally:
        path.write_text(before)
        RunFolder(run).seal()


@given(st.text())
def test_what_is_printed_steers_nothing(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)

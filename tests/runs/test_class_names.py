"""Whatever may be the name of a class when data are read, a run with it can be loaded, evaluated and shown."""

from __future__ import annotations

import io
import json
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ddcnn
from ddcnn.cli import main
from ddcnn.cli.options import build_config
from ddcnn.config import Config, DataConfig
from ddcnn.data.sources import SOURCES, register_source
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


@pytest.fixture(scope="module")
def named() -> Iterator[list[tuple[str, ...]]]:
    """Register a source whose classes are called as the last entry says."""
    classes: list[tuple[str, ...]] = [()]
    images = torch.randint(0, 256, (24, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    @register_source("odd_names")
    def _read(config: DataConfig) -> ddcnn.Dataset:
        return ddcnn.Dataset(config.source, images, torch.arange(24) % len(classes[-1]), classes[-1])

    yield classes
    del SOURCES["odd_names"]


def _said(*arguments: object) -> tuple[object, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code, out.getvalue(), err.getvalue()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=10), min_size=2, max_size=3, unique=True))
@example(["a", "b\0"]).via("the end of strings elsewhere")
@example(["\ud800", "x"]).via("no character")
@example([".", ".."]).via("names of folders")
@example(["\x1b[2J", "\u202e", "[red]x"]).via("what steers a terminal")
def test_from_the_training_to_the_evaluation(named: list[tuple[str, ...]], names: list[str]) -> None:
    named.append(tuple(names))
    with tempfile.TemporaryDirectory() as base:
        run, file = Path(base, "run"), Path(base, "x.npy")
        np.save(file, np.zeros((4, 4), np.uint8))
        config = build_config(
            {"data.source": "odd_names", "decomposition.grid": "1x2", "training.epochs": "1", "out": str(run)},
            None,
            ["model.name=tests.strategies.tiny:tiny", "compute={device: cpu, precision: float32, backend: looped}"],
        )
        if any(map(name_fault, names)):
            with pytest.raises(ddcnn.DdcnnError) as refused:
                ddcnn.train(config)
            assert len(str(refused.value).splitlines()) == 1
            assert not run.exists()
            return
        ddcnn.train(config)
        code, out, err = _said("predict", run, file, "--trust", "--format", "json")
        assert (code, err) == (0, "")
        (row,) = json.loads(out)
        assert row["class"] in names
        assert list(row["probabilities"]) == names
        assert list(ddcnn.evaluate(run, trust=True)["classes"]) == names
        for command in (["predict", run, file], ["evaluate", run]):
            code, out, err = _said(*command, "--trust")
            assert (code, err) == (0, "")
            assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in out.replace("\n", ""))


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

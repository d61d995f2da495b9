"""A run that a stranger sent runs no code, and has nothing written where it says."""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import ddcnn
from ddcnn.errors import RunError
from ddcnn.report import write_report
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.manifest import sha256
from tests.bars import write_bars
from tests.runs.edits import change, put


class Bomb:
    """What unpickling would do."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("name", ["locals/0.safetensors", "data.json", "comparison.json", "config.yaml"])
def test_a_pickle_is_refused_by_name(run: RunFolder, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (run.path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RunError, match=name):
        ddcnn.load(run.path, "cnn-dnn")
    sums = RunFolder(run.path).manifest().with_sum(name, sha256((run.path / name).read_bytes()))
    run.write_text("manifest.json", sums.to_text())
    with pytest.raises(RunError, match=name):
        ddcnn.load(run.path, "cnn-dnn")
    assert not (tmp_path / "exploded").exists()


def test_a_tag_of_yaml_makes_no_object(run: RunFolder, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(f"{text}x: !!python/object/apply:os.system ['touch exploded']\n")
    run.seal()
    with pytest.raises(RunError, match=r"config\.yaml cannot be used: is not valid YAML: could not determine a constr"):
        ddcnn.load(run.path)
    assert not (tmp_path / "exploded").exists()


@pytest.fixture
def with_code(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run whose network is a module that lies in the folder from which it is loaded."""
    (tmp_path / "theirs.py").write_text(
        "from pathlib import Path\nfrom ddcnn.models import VGG9\nPath('exploded').touch()\nnetwork = VGG9\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    change(run, "config.yaml", put("model", "name", "theirs:network"))
    return run


def test_a_module_that_has_changed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "ours_changing.py"
    text = "from tests.strategies.tiny import tiny\n\n\ndef network(*given, **more):\n    return tiny(*given, **more)\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    values = {"data": {"source": write_bars(tmp_path, (8, 8))}, "model": {"name": "ours_changing:network"}}
    values |= {"training": {"epochs": 1}, "compute": {"device": "cpu"}, "out": str(tmp_path / "run")}
    ddcnn.train(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ddcnn.load(tmp_path / "run", trust=True)
    module.write_text(text.replace("return tiny", "return  tiny"))
    with pytest.warns(UserWarning, match=r"the module of ours_changing:network is not the one with which .* put the"):
        ddcnn.load(tmp_path / "run", trust=True)


@pytest.mark.parametrize("code", [5, "x", [], {"theirs:network": 5}, None])
def test_digests_that_are_none(code: Any, with_code: RunFolder) -> None:
    change(with_code, "environment.json", lambda values: values | {"code": code})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert ddcnn.load(with_code.path, trust=True).local_cnns.members == 4
    assert [str(one.message)[:29] for one in said] == ["the module of theirs:network "] * isinstance(code, dict)


def test_code_is_imported_only_with_trust(with_code: RunFolder, tmp_path: Path) -> None:
    message = "import the module 'theirs' and call 'network' of it, which runs whatever code it holds; if you trust"
    for read in (ddcnn.load, ddcnn.evaluate):
        with pytest.raises(RunError, match=message):
            read(with_code.path)
    write_report(with_code.path)
    assert not (tmp_path / "exploded").exists()
    assert ddcnn.load(with_code.path, trust=True).local_cnns.members == 4
    assert (tmp_path / "exploded").exists()


def test_nothing_is_written_where_the_run_says(run: RunFolder, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    change(run, "config.yaml", put("data", "directory", str(there)))
    with pytest.raises(RunError, match=r"names the folder of its data, .*there.*name it with --data-dir, or say --tr"):
        ddcnn.evaluate(run.path)
    change(run, "config.yaml", lambda values: values | {"out": str(tmp_path / "out")})
    assert ddcnn.evaluate(run.path, trust=True)["samples"] == 12
    assert not list(there.iterdir())
    assert not (tmp_path / "out").exists()


def test_images_are_not_resized_to_what_the_run_never_had(run: RunFolder) -> None:
    change(run, "config.yaml", put("data", "image_size", [10**6, 10**6]))
    with pytest.raises(
        RunError, match=r"data\.image_size = \(1000000, 1000000\) does not fit the images of data\.json"
    ):
        ddcnn.evaluate(run.path)

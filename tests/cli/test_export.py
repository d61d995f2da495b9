"""`ddcnn export`, `ddcnn evaluate --onnx`, and what docs/how-to/export.md shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.errors import ExportError
from ddcnn.exporting import Exported
from tests.cli.trained import train_small

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
EXAMPLES = dict(re.findall(r"```python\n# ([\w-]+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))


def _need_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'ddcnn[export]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page has it: the run, and what was exported of it."""
    _need_onnx()
    folder = tmp_path_factory.mktemp("served")
    (folder / "runs").mkdir()
    shutil.copytree(run, folder / "runs" / "mine")
    ddcnn.export(run, folder / "mine.onnx", strategy="transfer", trust=True)
    ddcnn.export(run, folder / "served", parts=True, strategy="cnn-dnn", trust=True)
    return folder


def test_the_check_is_made_on_test_images(run: Path, tmp_path: Path) -> None:
    found = ddcnn.export(run, tmp_path / "m.pt2", format="torch-export", strategy="transfer", trust=True)
    assert re.fullmatch(r"\d+ test images of npz:.*", found.checked_on)
    assert 0 <= found.difference < 1e-4
    assert found.files == {"m.pt2": (tmp_path / "m.pt2").stat().st_size}
    assert list(tmp_path.iterdir()) == [tmp_path / "m.pt2"]


def test_the_check_is_made_on_random_images_if_there_are_no_others(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run.parent, tmp_path / "copy")
    text = (run / "config.yaml").read_text()
    gone = copy / "mine"
    (gone / "config.yaml").write_text(text.replace(str(run.parent / "d.npz"), str(tmp_path / "gone.npz")))
    from ddcnn.runs.folder import RunFolder

    RunFolder(gone).seal()
    found = ddcnn.export(gone, tmp_path / "m.safetensors", format="safetensors", trust=True)
    assert found.checked_on == "16 random images, since those of the run are not at hand"


def test_a_file_that_answers_otherwise_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from ddcnn.exporting.formats import FORMATS

    honest = FORMATS["torch-export"]

    def read(content, piece):  # type: ignore[no-untyped-def]
        file = honest.read(content, piece)
        return lambda x: {name: values + 2e-4 for name, values in file(x).items()}

    monkeypatch.setitem(FORMATS._entries, "torch-export", replace(honest, read=read))
    with pytest.raises(ExportError, match=r"^the exported probabilities differ by 0\.0002 .*nothing was written"):
        ddcnn.export(run, tmp_path / "m.pt2", format="torch-export", trust=True)
    assert list(tmp_path.iterdir()) == []


def test_names_reach_a_terminal_escaped(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Exported(Path("a\x1b[2J.pt2"), {"a": 1}, "vote", "2 test images of npz:\x1b[31m\u202ed.npz", 0.0)
    monkeypatch.setattr("ddcnn.exporting.export", lambda *_, **__: found)
    out = call("export", "run").out
    assert not {"\x1b", "\u202e"} & set(out)
    assert r"2 test images of npz:\x1b[31m\u202ed.npz" in out


def test_what_is_in_the_way(run: Path, tmp_path: Path) -> None:
    options = {"format": "safetensors", "trust": True}
    file = tmp_path / "m.safetensors"
    file.write_text("mine")
    with pytest.raises(ExportError, match="exists; choose another --out, or --force to replace it"):
        ddcnn.export(run, file, **options)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="was not exported in this format and is not replaced; choose another"):
        ddcnn.export(run, file, force=True, **options)  # type: ignore[arg-type]
    assert file.read_text() == "mine"
    file.unlink()
    ddcnn.export(run, file, **options)  # type: ignore[arg-type]
    ddcnn.export(run, file, force=True, strategy="global", **options)  # type: ignore[arg-type]
    for own in ("locals/0.safetensors", "manifest.json"):  # of the run
        with pytest.raises(ExportError, match="was not exported in this format"):
            ddcnn.export(run, run / own, force=True, **options)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"exists; choose another --out$"):
        ddcnn.export(run, tmp_path, parts=True, force=True, **options)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="is a folder; name a file with --out"):
        ddcnn.export(run, tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="is not a folder; make it, or choose another --out"):
        ddcnn.export(run, tmp_path / "no" / "m", **options)  # type: ignore[arg-type]


def test_the_command_tells_what_it_wrote(call: Callable, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "served"
    options = ["--format", "safetensors", "--parts", "--strategy", "cnn-dnn", "--trust", "--out", out]
    code, said, err = call("export", run, *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(said)
    names = {f"{name}.safetensors" for name in ("local-0", "local-1", "aggregation")}
    assert set(found["files"]) == names | {"parts.json"}
    assert found["files"] == {path.name: path.stat().st_size for path in out.iterdir()}
    facts = json.loads((out / "parts.json").read_text())
    assert [row["box"] for row in facts["subdomains"]] == [[[0, 8], [0, 7]], [[0, 8], [5, 12]]]
    assert facts["parts"][0]["input"] == {"name": "pixels", "shape": ["batch", 1, 8, 7]}
    code, said, err = call("export", run, *options[:2], "--trust", "--out", tmp_path / "m.safetensors")
    assert (code, err) == (0, "")
    assert "checked on" in said


def test_an_unknown_format_is_refused(refused: Callable, run: Path) -> None:
    assert "did you mean 'onnx'" in refused("export", run, "--format", "onxx", "--trust")


def test_a_missing_package_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'ddcnn\[export\]'"):
        ddcnn.export(run, tmp_path / "m.onnx", trust=True)
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_is_evaluated_as_its_run_is(call: Callable, run: Path, served: Path) -> None:
    expected = ddcnn.evaluate(run, strategy="transfer", trust=True)
    found = json.loads(call("evaluate", run, "--onnx", served / "mine.onnx", "--trust", "--json").out)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), key
    assert "transfer" in call("evaluate", run, "--onnx", served / "mine.onnx", "--trust").out


def test_an_onnx_file_decides_by_the_thresholds_of_its_run(tmp_path: Path, call: Callable) -> None:
    """By these, nearly all images are bright, whatever the most probable class is."""
    _need_onnx()
    run = train_small(tmp_path, threshold=0.02)
    ddcnn.export(run, tmp_path / "m.onnx", strategy="cnn-dnn", trust=True)
    expected = ddcnn.evaluate(run, strategy="cnn-dnn", trust=True)
    found = json.loads(call("evaluate", run, "--onnx", tmp_path / "m.onnx", "--trust", "--json").out)
    assert found["thresholds"] == [0.98, 0.02] == list(expected["thresholds"])
    assert found["confusion"] == expected["confusion"]
    assert [sum(column) for column in zip(*found["confusion"], strict=True)][1] > 6


def test_files_that_are_no_network_of_the_run(refused: Callable, run: Path, served: Path, tmp_path: Path) -> None:
    def said(file: Path, *more: str) -> str:
        return refused("evaluate", run, "--onnx", file, "--trust", *more)

    assert "No such file" in said(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\x00broken")
    assert "ONNX Runtime cannot load this" in said(tmp_path / "bad.onnx")
    assert "is no whole network of ddcnn export" in said(served / "served" / "aggregation.onnx")
    assert "has strategy transfer, but asked for is global" in said(served / "mine.onnx", "--strategy", "global")
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "cannot be read: it is a named pipe, not a file" in said(tmp_path / "pipe.onnx")


def test_metadata_that_somebody_changed(refused: Callable, run: Path, served: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(served / "mine.onnx")
    facts = {one.key: one.value for one in model.metadata_props}
    other = json.loads(facts["input"]) | {"value_range": [0.0, 1.0]}
    three = json.dumps(3 * [{"missing": False}])
    for change, message in (
        ({"classes": "[1"}, "its metadata cannot be used"),
        ({"classes": "[1, 2]"}, "its metadata cannot be used: Input should be a valid string"),
        ({"input": "[]"}, "its metadata cannot be used"),
        ({"input": json.dumps(other)}, "the exported network has input"),
        ({"subdomains": 100_000 * "["}, "its metadata cannot be used"),
        ({"thresholds": "[0.5]"}, "1 thresholds for 2 classes"),
        ({"thresholds": "[0.0, 1.0]"}, "its metadata cannot be used"),
        ({"subdomains": three}, "should answer scores of shape (12, 2) and local probabilities of (12, 3, 2)"),
    ):
        onnx.helper.set_model_props(model, facts | change)
        onnx.save(model, tmp_path / "m.onnx")
        assert message in refused("evaluate", run, "--onnx", tmp_path / "m.onnx", "--trust")


@pytest.mark.parametrize("name", ["onnxruntime", "parts"])
def test_serving_as_the_page_shows_it(
    name: str, served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(served)
    found: dict = {}
    exec(compile(EXAMPLES[name], str(PAGE), "exec"), found)
    strategy = {"onnxruntime": "transfer", "parts": "cnn-dnn"}[name]
    network = ddcnn.load(served / "runs" / "mine", strategy, trust=True)
    with torch.no_grad():
        expected = network(torch.from_numpy(found["images"])).softmax(1)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    assert re.search("dark|bright", capsys.readouterr().out)


@pytest.fixture
def plain_types() -> Iterator[None]:
    """Check no shapes, which are tensors while PyTorch traces."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("plain_types", "seeded")
@pytest.mark.parametrize("name", ["torch-export", "loop", "jit", "lightning"])
def test_the_examples_in_pytorch_run(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "lightning":
        monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning sets it, and leaves it
        pytest.importorskip("pytorch_lightning", reason="the page shows PyTorch Lightning")
    code = _as_on_the_page(name, run, tmp_path)
    monkeypatch.chdir(tmp_path)
    if name == "torch-export":
        ddcnn.export(run, "mine.pt2", format="torch-export", strategy="transfer", trust=True)
    found: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        exec(compile(code, str(PAGE), "exec"), found)
        if name in ("loop", "lightning"):
            network = found["network"] if name == "loop" else found["module"].network
            before = ddcnn.load(run, trust=True).state_dict()
            assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())
        if name == "jit":
            again = torch.jit.load("mine.pt")
            with torch.no_grad():
                torch.testing.assert_close(again(found["images"]), found["network"](found["images"]))
    if name == "torch-export":
        assert re.search("dark|bright", capsys.readouterr().out)


@pytest.mark.slow
def test_the_example_of_compiling_runs(run: Path, tmp_path: Path) -> None:
    """In a process of its own: the compiler leaves threads."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    code = _as_on_the_page("compile", run, tmp_path)
    code += "    torch.testing.assert_close(compiled(images), network(images))\n"
    root = Path(__file__).parents[2]
    paths = os.pathsep.join((str(root / "src"), str(root)))
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("tensor([")


def _as_on_the_page(name: str, run: Path, folder: Path) -> str:
    """Return an example, and put the run where it expects it; the run's network is of the tests, so it needs trust."""
    (folder / "runs").mkdir()
    shutil.copytree(run, folder / "runs" / "mine")
    return EXAMPLES[name].replace('load("runs/mine"', 'load("runs/mine", trust=True')


def test_every_example_of_the_page_is_run() -> None:
    assert set(EXAMPLES) == {"onnxruntime", "parts", "torch-export", "loop", "lightning", "jit", "compile"}
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(EXAMPLES)

"""Modules of the user's own lie in the folder in which ``ddcnn`` is called, as the pages have it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddcnn.cli import main
from ddcnn.config import DataConfig
from ddcnn.data.source_paths import named_paths, source_folder
from ddcnn.data.sources import is_foreign, open_data
from ddcnn.errors import DataError
from ddcnn.registry import is_module
from tests.bars import write_bars

MODULES = {
    "bars_here.py": """
import numpy as np
from sizes_here import SIZE
from ddcnn.data.arrays import as_dataset

def read(config):
    labels = np.arange(24) % 2
    images = np.random.default_rng(0).integers(0, 90, (24, SIZE, SIZE), dtype=np.uint8)
    images[labels == 1, :, ::2] += 100
    return as_dataset(images, labels)
""",
    "nets_here.py": """
from torch import nn

def small(in_channels, classes, image_size, *, width=1.0):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, classes))
""",
    "sizes_here.py": "SIZE = 8\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("engine", ["in_process", "processes"])
def test_of_the_current_folder(folder: Path, engine: str) -> None:
    words = "--data bars_here:read --model nets_here:small --grid 2x2 --epochs 1 --threads 1 --out run --engine"
    # -P: sys.path is that of the console script, which does not hold the current folder
    command = [sys.executable, "-P", "-m", "ddcnn", "train", *words.split(), engine]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "comparison.json").is_file()


def test_a_missing_module_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="and no module 'barz_here' is installed, or in this folder"):
        open_data(DataConfig(source="barz_here:read"))
    with pytest.raises(DataError, match="did you mean 'folder:PATH'"):
        open_data(DataConfig(source="foldr:photos"))


def test_to_ask_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run from a stranger may name a package that lies beside it."""
    package = tmp_path / "package_here"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_foreign("package_here.inner:read")
    assert not is_foreign("photos:read")  # a folder, no module
    monkeypatch.syspath_prepend(tmp_path)
    assert is_module("package_here.inner")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def read(config:\n", r"cannot be imported: .*was never closed \(broken_here.py, line 1\)"),
        ("x = 1\ny = z\n", r"cannot be imported: name 'z' is not defined \(.*broken_here.py, line 2\)"),
        ("raise RuntimeError('no licence')", r"cannot be imported: no licence \(.*broken_here.py, line 1\)"),
        ("import sys\nsys.exit(0)\n", r"cannot be imported: it ends the program with sys.exit\(0\) \(.*, line 2\)"),
    ],
)
def test_a_broken_module_is_one_line(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_here.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(DataError, match=said) as caught:
        open_data(DataConfig(source="broken_here:read"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "error: ZeroDivisionError: division by zero ("),
        ("torch.ones(2) + torch.ones(3)", "error: RuntimeError: The size of tensor a (2) must match the size of "),
        ("sys.exit(0)", "error: it ends the program with sys.exit(0) ("),
        ("raise SystemExit", "error: it ends the program with sys.exit(None) ("),
    ],
)
@pytest.mark.parametrize("where", ["build", "forward"])
def test_what_your_own_code_raises_is_one_line_with_its_place(
    line: str,
    said: str,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error of ddcnn itself would be a traceback; a program that ends without a word and with 0 looks done."""
    code = ["import sys, torch", "class net(torch.nn.Module):"]
    if where == "build":
        code += ["    def __init__(self, *given, **more):", f"        {line}"]
    else:
        code += ["    def __init__(self, *given, **more):", "        super().__init__()"]
        code += ["        self.layer = torch.nn.Linear(1, 1)", "    def forward(self, x):", f"        {line}"]
    (tmp_path / "ours_broken.py").write_text("\n".join(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ours_broken", raising=False)
    source = write_bars(tmp_path, (8, 8))
    with pytest.raises(SystemExit) as end:
        main(["train", "--data", source, "--model", "ours_broken:net", "--epochs", "1", "--out", "run"])
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    if where == "build" or "exit" in line.lower():
        assert last.startswith(said)
        assert re.search(r"ours_broken.py, line \d+\)", last)
    else:
        assert "Traceback" not in last


def test_a_function_is_no_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is called as the function must not stand in the way of the run."""
    (folder / "read").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert named_paths(DataConfig(source="bars_here:read")) == []
    assert source_folder(DataConfig(source="bars_here:read")) is None
    assert source_folder(DataConfig(source="folder:read")) == Path("read")

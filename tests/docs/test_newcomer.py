"""What a newcomer does, from `docs/tutorial.md` and `docs/how-to/arrays.md` alone, with nothing made smaller.

The blocks are those of the pages, in their order, with real networks; each command is a program of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, commands
from tests.engines.on_ranks import ended
from tests.forked import Program

pytestmark = pytest.mark.slow
MINUTES = 3
FOUND = """
import json
print(json.dumps({
    "accuracy": (names == y[test].astype(str)).mean(),
    "shape": probabilities.shape,
    "furthest from 1": float(abs(probabilities.sum(1) - 1).max()),
    "classes": again.classes_.tolist(),
}))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def walk(page: str, folder: Path) -> str:
    """Do all that a page shows, in a folder; return what was printed."""
    said = ""
    for block in blocks(page):
        if block.language == "python":
            said += _run(("-c", block.text), folder)
        elif block.language == "bash":
            for command in commands(block, folder.parent):
                if command[0] == "ddcnn":
                    said += _run(("-m", *command), folder)
    return said


def _run(command: Sequence[str], folder: Path) -> str:
    program = Program(command, os.environ | {"PYTHONPATH": str(ROOT / "src")}, folder)
    ((code, out, err),) = ended([program], MINUTES * 60)
    assert code == 0, (command, err)
    return out


def test_from_photos_to_an_answer_without_ddcnn(here: Path) -> None:
    for package in ("captum", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'ddcnn[explain,export]'")
    said = walk("docs/tutorial.md", here)
    assert "180 images of 3 classes" in said
    results = json.loads((here / "runs/photos/comparison.json").read_text())
    accuracies = {row["name"]: row["test_accuracy"] for row in results["strategies"]}
    assert max(accuracies.values()) > 0.8, accuracies  # of three classes: the page promises a network that sorts
    assert (here / "runs/photos/report.html").stat().st_size > 10_000
    assert (here / "why.png").stat().st_size > 10_000
    assert len(re.findall(r"^\S*grass/\d+\.png,", said, re.M)) == 60
    answer = json.loads(said.strip().splitlines()[-1].replace("'", '"'))
    assert sum(answer.values()) == pytest.approx(1, abs=0.01)
    assert max(answer, key=answer.get) == "brick"


def test_from_an_array_to_a_grid_search(here: Path) -> None:
    pytest.importorskip("pandas", reason="the page shows a pandas DataFrame")
    code = "".join(block.text for block in blocks("docs/how-to/arrays.md") if block.language == "python")
    said = _run(("-c", code + FOUND), here)
    found = json.loads(said.splitlines()[-1])
    assert found["accuracy"] > 0.8  # ten digits
    assert found["shape"] == [397, 10]
    assert found["furthest from 1"] < 1e-5
    assert found["classes"] == list(range(10))
    assert "domaindecomposedclassifier__grid" in said

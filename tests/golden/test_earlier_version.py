"""A run that version 0.1 made (commit 816249a) is read as it was read then.

    ddcnn compare --data phantom:size=32x32x16,n=24 --model cnn3d --grid 2x2x1 --backend fused --batch-size 4 --lr 0.02
        --set "model.options={block_channels: [4, 4, 8, 8], hidden: 16}" --set aggregation.hidden=[8] --epochs 1 ...

``run-0.1.json`` holds what that version said of it; the report was removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import ddcnn
from ddcnn.errors import RunError
from ddcnn.report import write_report

RUN = Path(__file__).with_name("run-0.1")
SAID = json.loads(RUN.with_name("run-0.1.json").read_text())


@pytest.mark.parametrize("name", SAID["scores"])
def test_it_decides_the_same(name: str) -> None:
    x = (torch.arange(2 * 32 * 32 * 16) * 7 % 256).to(torch.uint8).view(2, 1, 32, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(ddcnn.load(RUN, name)(x), torch.tensor(SAID["scores"][name]), rtol=1e-4, atol=1e-5)


def test_it_is_evaluated_the_same() -> None:
    found = ddcnn.evaluate(RUN, strategy="transfer")
    assert found["accuracy"] == pytest.approx(SAID["transfer_accuracy"])
    assert found["loss"] == pytest.approx(SAID["transfer_loss"], rel=1e-3)
    assert found["learned_from"] is None  # that version did not write which images it learned from


def test_it_is_reported(tmp_path: Path) -> None:
    shutil.copytree(RUN, tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert all(label in page for label in ("global CNN", "CNN-DNN", "transfer"))


def test_one_that_did_not_finish_is_refused_with_a_clear_word(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    (run / "manifest.json").unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "run.json").write_text(json.dumps({"job": "compare", "fingerprint": "0", "choices": {}}))
    with pytest.raises(RunError, match="was begun by another version of ddcnn, whose checkpoints this one does not"):
        ddcnn.resume(run)

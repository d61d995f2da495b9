"""`compare`, `train` and `report`: what they print, and where."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ddcnn.config import Config
from ddcnn.runs.folder import default_folder


def test_table_on_stdout_the_rest_on_stderr(call: Callable, asked) -> None:
    code, out, err = call("compare", "--out", "o")
    assert code == 0
    assert "global CNN" in out
    assert out.splitlines()[-1] == f"report: {Path('o', 'report.html')}"
    assert "\x1b" not in out + err
    note, epoch = err.splitlines()  # of short epochs, one line per ten, and the last
    assert note == "precision float32: [because]"
    pattern = r"local x4: epoch 2/2, loss 0\.600, accuracy 75\.0%, validation 50\.0%, [\d,]+ images/s, 0:00 left"
    assert re.fullmatch(pattern, epoch)


def test_quiet_prints_the_table_only(call: Callable, asked) -> None:
    code, out, err = call("train", "--out", "o", "--quiet")
    assert (code, err) == (0, "")
    assert "global CNN" in out
    assert "report" not in out


def test_json_is_one_object_and_nothing_else(call: Callable, asked) -> None:
    code, out, err = call("compare", "--out", "o", "--json")
    assert code == 0
    assert json.loads(out) == {
        "data": "d",
        "strategies": [{"name": "global", "test_accuracy": 0.9}, {"name": "vote", "test_accuracy": None}],
        "subdomains": [],
    }
    assert "a network of the user prints something" in err
    assert "report: " in err


def test_json_and_quiet(call: Callable, asked) -> None:
    _, out, err = call("compare", "--out", "o", "--json", "--quiet")
    json.loads(out)
    assert err == "a network of the user prints something\n"


def test_what_was_typed_is_recorded(call: Callable, asked) -> None:
    call("train", "--out", "a b", "--quiet")
    assert (asked.name, asked.command) == ("train", "ddcnn train --out 'a b' --quiet")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "compare-mnist5k-vgg9-2x2-s0"),
        ({"data": {"source": "folder:/a/my flowers/"}, "seed": 3}, "compare-my_flowers-vgg9-2x2-s3"),
        ({"data": {"source": "npz:x/d.npz"}, "decomposition": {"grid": "4x2"}}, "compare-d-vgg9-4x2-s0"),
        ({"model": {"name": "a.b:C"}}, "compare-mnist5k-a.b_C-2x2-s0"),
    ],
)
def test_default_folder(values: dict, expected: str) -> None:
    assert default_folder(Config.parse(values), "compare") == Path("runs", expected)


def test_default_folder_of_one_strategy_names_it() -> None:
    config = Config.parse({"strategy": "transfer"})
    assert default_folder(config, "train") == Path("runs/train-transfer-mnist5k-vgg9-2x2-s0")


def test_default_folder_is_used(call: Callable, asked) -> None:
    call("compare")
    assert asked.config.out == Path("runs", "compare-mnist5k-vgg9-2x2-s0")


def test_volumes_ask_for_huge_pages(call: Callable, asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "to be put back")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    call("train", "--grid", "2x2", "--out", "images")
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ
    call("train", "--grid", "4x4x2", "--out", "volumes")
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    call("train", "--grid", "4x4x2", "--out", "volumes")
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"  # the user's own choice stays


def test_recipe_over_a_complete_file_is_noted(call: Callable, asked, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(Config().to_yaml())
    assert (
        f"--recipe paper fills only what {file} leaves out" in call("train", "--config", file, "--recipe", "paper").err
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--grid", "20x20"], "20x20"),
        (["--grid", "9x9"], "pixels"),
        (["--data", "npz:truncated.npz"], "truncated.npz"),
        (["--data", "npz:missing.npz"], "missing.npz does not exist"),
        (["--device", "nowhere"], "--device 'nowhere' cannot be used here"),
        (["--out", "taken"], "taken exists; choose another --out, or --force"),
    ],
)
def test_what_cannot_be_used_leaves_nothing_behind(
    refused: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("d.npz", images=rng.integers(0, 255, (12, 16, 16), dtype=np.uint8), labels=[0, 1] * 6)
    Path("truncated.npz").write_bytes(Path("d.npz").read_bytes()[:300])
    Path("taken").mkdir()
    Path("taken", "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert expected in refused("compare", "--data", "npz:d.npz", *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_was_not_ended_is_offered_to_be_gone_on_with(refused: Callable, tmp_path: Path) -> None:
    run = tmp_path / "begun"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "run.json").write_text("{}")
    line = refused("train", "--limit-train", "60", "--device", "cpu", "--out", run)
    assert f"{run} holds a run that was not ended; go on with --resume {run}, choose another --out, or --force" in line


def hungry(_channels: int, _classes: int, _size: object, *, width: float) -> nn.Module:
    class Hungry(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.is_meta:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
            return super().forward(x.flatten(1)[:, :1])

    return Hungry(1, 2)


def test_too_little_memory_is_not_blamed_on_the_network(refused: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((40, 8, 8), np.uint8) + np.arange(40)[:, None, None].astype(np.uint8),
             labels=[0, 1] * 20)  # fmt: skip
    options = ["--data", f"npz:{tmp_path / 'd.npz'}", "--model", f"{__name__}:hungry", "--out", tmp_path / "run"]
    line = refused("train", *options, "--device", "cpu", "--epochs", "1")
    assert "not enough memory; use a smaller --batch-size" in line


def test_report_writes_the_page(call: Callable, made_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddcnn.report.write_report", lambda run: run / "report.html")
    assert call("report", made_run) == (0, f"report: {made_run / 'report.html'}\n", "")


def test_report_of_something_else(refused: Callable, tmp_path: Path) -> None:
    assert "is not a run" in refused("report", tmp_path)

"""A run that is killed, at any moment, and goes on, ends as if nothing had happened."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddcnn
from ddcnn.errors import RunError
from tests.bars import write_bars
from tests.experiments.killed import in_process

TIMES = ("seconds", "critical_path_seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a small comparison; its data are read from a file."""
    source = write_bars(tmp_path_factory.mktemp("data"), (8, 8))
    return {
        "data": {"source": source},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 2, "batch_size": 20, "lr": 0.05, "shift": 1},
        "aggregation": {"epochs": 3, "batch_size": 40},
        "compute": {"device": "cpu", "precision": "float32", "backend": "fused", "group": 2},
    }


def content(run: Path) -> dict[str, Any]:
    """Return what a run says, but for times."""
    files: dict[str, Any] = {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*.safetensors")}
    comparison = json.loads((run / "comparison.json").read_text())
    for row in [*comparison["strategies"], *comparison["details"]["stages"]]:
        for name in TIMES:
            del row[name]
    del comparison["run"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {p.relative_to(run).as_posix() for p in run.rglob("*")}
    return files | {"comparison": comparison, "rows": [{**row, "seconds": 0} for row in rows], "names": names}


@pytest.mark.slow
def test_killed_at_twenty_moments(values: dict[str, Any], tmp_path: Path) -> None:
    code, moments = in_process(values | {"out": str(tmp_path / "whole")})
    assert code == 0
    expected = content(tmp_path / "whole")
    begun = next(n for n in range(1, moments) if _is_begun(values, tmp_path / f"begin{n}", n))
    chosen = random.Random(0).sample(range(begun, moments), 20)
    for last in chosen:
        run = values | {"out": str(tmp_path / f"killed{last}")}
        assert in_process(run, last)[0] == -9
        again = random.Random(last).randrange(1, moments)  # the second life may end early, too
        if in_process(run, again, resuming=True)[0] == -9:
            assert in_process(run, resuming=True)[0] == 0
        assert content(tmp_path / f"killed{last}") == expected, f"killed at moment {last}, then {again}"
        ddcnn.runs.folder.RunFolder(tmp_path / f"killed{last}").check()


def _is_begun(values: dict[str, Any], out: Path, last: int) -> bool:
    """Tell whether a run that is killed so early can be resumed; if not, that is said."""
    assert in_process(values | {"out": str(out)}, last)[0] == -9
    if (out / "config.yaml").is_file():
        return True
    with pytest.raises(RunError, match="no run that was begun; start it with ddcnn compare"):
        ddcnn.resume(out)
    return False


def test_other_data(values: dict[str, Any], tmp_path: Path) -> None:
    source = Path(values["data"]["source"].removeprefix("npz:"))
    arrays = dict(np.load(source))
    np.savez(tmp_path / "d.npz", **arrays)
    run = values | {"data": {"source": f"npz:{tmp_path / 'd.npz'}"}, "out": str(tmp_path / "run")}
    assert in_process(run, 60)[0] == -9
    with pytest.raises(RunError, match=r"names code .* import the module 'tests.strategies.tiny' .* if you trust it"):
        ddcnn.resume(tmp_path / "run")
    arrays["labels"] = arrays["labels"][::-1].copy()
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(RunError, match="began with other data or another configuration"):
        ddcnn.resume(tmp_path / "run", trust=True)


def _swapped(path: Path) -> None:
    split = json.loads(path.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    path.write_text(json.dumps(split))


def _renamed(path: Path) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"classes": data["classes"][::-1], "mean": [99.0]}))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("split.json", _swapped),
        ("split.json", _cut),
        ("data.json", _renamed),
        ("data.json", _cut),
        ("content.safetensors", _cut),
    ],
)
def test_what_was_damaged_is_never_sealed(
    name: str, damage: Callable[[Path], None], values: dict[str, Any], tmp_path: Path
) -> None:
    """A file that is written before the training, and read after it: of other images, or half of it."""
    out = tmp_path / "run"
    assert in_process(values | {"out": str(out)}, 60)[0] == -9
    before = (out / name).read_bytes()
    damage(out / name)
    assert (out / name).read_bytes() != before
    assert in_process(values | {"out": str(out)}, resuming=True)[0] == 0
    assert (out / name).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"job": "x"}, {"job": None}, {"choices": None}, {"choices": {"a": 1}}, {"proofs": "x"}, {"classes": [0, 1]}],
)
def test_a_damaged_beginning_is_one_line(change: dict[str, Any], values: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert in_process(values | {"out": str(out)}, 60)[0] == -9
    begun = json.loads((out / "checkpoints" / "run.json").read_text())
    (out / "checkpoints" / "run.json").write_text(json.dumps(begun | change))
    with pytest.raises(RunError, match=r"run\.json is damaged; copy the run anew, or start anew with another --out"):
        ddcnn.resume(out, trust=True)


def test_folds_go_on(values: dict[str, Any], tmp_path: Path) -> None:
    folds = values | {"data": values["data"] | {"folds": "3"}}
    code, moments = in_process(folds | {"out": str(tmp_path / "whole")})
    assert code == 0
    for last in (moments // 2, moments - 3):
        out = tmp_path / f"{last}"
        assert in_process(folds | {"out": str(out)}, last)[0] == -9
        assert in_process(folds | {"out": str(out)}, resuming=True)[0] == 0
        assert content(out)["rows"] == content(tmp_path / "whole")["rows"]
        assert content(out)["names"] == content(tmp_path / "whole")["names"]


def test_a_complete_run_is_read(values: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert in_process(values | {"out": str(out)})[0] == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert ddcnn.resume(out).results["strategies"][0]["name"] == "global"
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before

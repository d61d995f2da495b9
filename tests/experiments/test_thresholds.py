"""Decision thresholds of a run: chosen on validation images, kept with it, used by all that decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.training import Progress
from ddcnn.training.thresholds import choose

SMALL = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 1, "batch_size": 20},
    "aggregation": {"epochs": 2, "hidden": [4]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """200 images, a tenth of the second class, which is a little brighter."""
    draw = np.random.default_rng(0)
    labels = (np.arange(200) % 10 == 0).astype(int)
    images = draw.integers(0, 220, (200, 8, 6)) + 30 * labels[:, None, None]
    return images.astype(np.uint8), np.array(["common", "rare"])[labels]


def config(out: Path, **aggregation: Any) -> ddcnn.Config:
    sections = {"aggregation": SMALL["aggregation"] | aggregation, "data": {"validation": 0.3}, "out": out}  # type: ignore[operator]
    return ddcnn.Config.parse(SMALL | sections)


@pytest.fixture(scope="module")
def compared(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str]]:
    out, notes = tmp_path_factory.mktemp("thresholds") / "run", Notes()
    ddcnn.compare(config(out, threshold="f1"), arrays, progress=notes)
    return out, notes.lines


def test_they_are_those_of_the_validation_images(compared: tuple[Path, Sequence[str]], arrays: Any) -> None:
    run, lines = compared
    split = json.loads((run / "split.json").read_text())
    network = ddcnn.load(run, "cnn-dnn", trust=True)
    images, labels = (torch.from_numpy(a[split["validation"]]) for a in (arrays[0], (arrays[1] == "rare").astype(int)))
    with torch.no_grad():
        assert network.thresholds == pytest.approx(choose(network(images[:, None]), labels, "f1"))
    said = f"thresholds of cnn-dnn: common {network.thresholds[0]:.3f}, rare {network.thresholds[1]:.3f} (f1 on 48 "
    assert any(line.startswith(said) for line in lines)


def test_all_that_decide_use_them(compared: tuple[Path, Sequence[str]], arrays: Any) -> None:
    run, _ = compared
    results = json.loads((run / "comparison.json").read_text())
    rows = {row["name"]: row for row in results["strategies"]}
    assert len({tuple(row["thresholds"]) for row in rows.values()}) > 1
    network = ddcnn.load(run, "cnn-dnn", trust=True)
    network.thresholds = (0.97, 0.03)  # so that it matters
    p = network.predict_proba(arrays[0])
    names = np.where(p[:, 1] > 0.03, "rare", "common")
    assert 0 < (names == "rare").sum() != (p[:, 1] > 0.5).sum()
    assert network.predict(arrays[0]).tolist() == names.tolist() == network.without([]).predict(arrays[0]).tolist()
    again = ddcnn.evaluate(run, data=arrays, strategy="cnn-dnn", trust=True)
    assert again["accuracy"] == pytest.approx(rows["cnn-dnn"]["test_accuracy"])
    assert again["f1"] == pytest.approx(rows["cnn-dnn"]["test_f1"])
    assert again["confusion"] == results["details"]["confusion"]["cnn-dnn"]
    assert again["classes"]["rare"]["f1"] == results["details"]["class_figures"]["cnn-dnn"]["f1"][1]


def test_only_decisions_depend_on_them(compared: tuple[Path, Sequence[str]], arrays: Any, tmp_path: Path) -> None:
    plain = ddcnn.compare(config(tmp_path / "plain"), arrays)
    assert "thresholds" not in plain.results["strategies"][0]
    assert "thresholds" not in (tmp_path / "plain" / "networks.json").read_text()
    for name in ("cnn-dnn", "coherent"):
        before, after = plain.networks[name], ddcnn.load(compared[0], name, trust=True)
        np.testing.assert_array_equal(before.predict_proba(arrays[0]), after.predict_proba(arrays[0]))


def test_a_number_and_what_mistakes_cost(arrays: Any, tmp_path: Path) -> None:
    network = ddcnn.fit(*arrays, config=config(tmp_path, threshold=0.125).model_copy(update={"out": None}))
    assert network.thresholds == (0.875, 0.125)
    p = network.predict_proba(arrays[0])[:, 1]
    assert (network.predict(arrays[0]) == "rare").tolist() == (p > 0.125).tolist()
    dear = config(tmp_path, threshold="cost", costs={"rare": {"common": 1e6}}).model_copy(update={"out": None})
    eager = ddcnn.fit(*arrays, config=dear)
    assert eager.thresholds is not None
    assert eager.thresholds[1] < 0.5
    with pytest.raises(ddcnn.DdcnnError, match="costs names a class 'rar'"):
        ddcnn.compare(config(tmp_path / "no", threshold="cost", costs={"rar": {"common": 2}}), arrays)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("thresholds", [[0.2, 0.3, 0.5], [0.0, 1.0], "f1"])
def test_a_run_with_others_than_it_can_have(
    compared: tuple[Path, Sequence[str]], tmp_path: Path, thresholds: Any, copy_with: Callable[..., Path]
) -> None:
    described = json.loads((compared[0] / "networks.json").read_text())
    described["vote"]["thresholds"] = thresholds
    changed = copy_with(compared[0], tmp_path / "changed", {"networks.json": json.dumps(described)})
    with pytest.raises(ddcnn.DdcnnError, match=r"networks\.json"):
        ddcnn.load(changed, "vote", trust=True)


@pytest.fixture
def copy_with() -> Callable[..., Path]:
    import shutil

    from ddcnn.runs.folder import RunFolder

    def copy(run: Path, to: Path, files: dict[str, str]) -> Path:
        shutil.copytree(run, to)
        for name, text in files.items():
            (to / name).write_text(text)
        (to / "manifest.json").unlink()
        RunFolder(to).seal()
        return to

    return copy

"""`labels`, and `data check`: what is there twice, and whose label was changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddcnn
from ddcnn.data import open_data
from ddcnn.errors import RunError
from ddcnn.experiments.out_of_fold import out_of_fold
from ddcnn.training import Progress

pytest.importorskip("cleanlab", reason="pip install 'ddcnn[experiments]'")
WRONG = ("top/07.png", "bottom/11.png", "bottom/23.png")


class Noting(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 80 images of a bright half, three of them in the wrong folder, and one in both."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, rows in (("bottom", slice(4, 8)), ("top", slice(0, 4))):
        (root / name).mkdir()
        for i in range(40):
            image = rng.integers(0, 60, (8, 8), dtype=np.uint8)
            file = f"{name}/{i:02}.png"
            image[slice(4 * (rows.start == 0), 4 + 4 * (rows.start == 0)) if file in WRONG else rows] += 150
            Image.fromarray(image).save(root / file)
    (root / "top" / "both.png").write_bytes((root / "bottom" / "00.png").read_bytes())
    return root


@pytest.fixture
def values(photos: Path) -> dict[str, Any]:
    return {
        "data": {"source": f"folder:{photos}", "folds": "2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": [1, 2]},
        "training": {"epochs": 8, "batch_size": 10, "lr": 0.05, "augment": False},
        "aggregation": {"epochs": 2, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from ddcnn.cli import main

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 0
        return capsys.readouterr().out

    return run


def test_what_was_done_on_purpose_is_found(
    values: dict[str, Any], photos: Path, tmp_path: Path, call: Callable[..., str]
) -> None:
    progress = Noting()
    found = ddcnn.experiment("labels", values, out=tmp_path / "e", progress=progress).summary
    assert [arm["name"] for arm in found["arms"]] == [
        "all images",
        "without doubtful labels",
        "without as many others",
    ]
    left_out = [re.fullmatch(r"labels: (\d+) of (\d+) training images are left out", note) for note in progress.notes]
    assert all(int(one[1]) <= 8 for one in left_out if one)
    assert sum(one is not None for one in left_out) == 2  # folds
    told = json.loads(call("data", "check", f"folder:{photos}", "--run", tmp_path / "e", "--trust", "--json"))
    assert told["judged"] == told["samples"] == 81
    files = [row["file"] for row in told["suspects"]]
    assert set(WRONG) <= set(files)
    assert len(files) <= 6
    assert all(row["probability"] < row["probability_decided"] for row in told["suspects"])
    (copy,) = told["copies"]
    assert [(row["file"], row["class"]) for row in copy["files"]] == [
        ("bottom/00.png", "bottom"),
        ("top/both.png", "top"),
    ]
    assert copy["in_two_classes"]
    said = call("data", "check", f"folder:{photos}")
    assert "81 images, 1 of them more than once\n  bottom/00.png (bottom, " in said
    assert "in two classes" in said
    assert "probably wrong" not in said
    other = open_data(ddcnn.Config.parse({"data": {"source": f"folder:{photos}", "image_size": [4, 4]}}).data)
    with pytest.raises(RunError, match="has seen other images or labels; give the data as they were given to it"):
        out_of_fold(tmp_path / "e", other, trust=True)
    with pytest.raises(RunError, match=r"holds no complete run with test images; give that of ddcnn compare --folds 5"):
        out_of_fold(tmp_path, other)


def test_the_parts_are_those_of_the_run(call: Callable[..., str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for n in range(12):
            image = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8))
            for copy in (1, 2):
                image.save(tmp_path / "in" / name / f"{n:02}-{copy}.png")
    values: dict[str, Any] = {
        "data": {"source": f"folder:{tmp_path / 'in'}"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1, "batch_size": 8, "lr": 0.02},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "strategy": "local",
        "seed": 3,
    }
    run = ddcnn.train(ddcnn.Config.parse(values | {"out": tmp_path / "run"})).run
    split = json.loads((run / "split.json").read_text())
    files = sorted(str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*.png"))
    part_of = {files[i]: part for part in ("train", "validation", "test") for i in split[part]}

    def told(*more: object) -> list[dict[str, Any]]:
        copies = json.loads(call("data", "check", f"folder:{tmp_path / 'in'}", "--json", *more))["copies"]
        assert len(copies) == 24
        return [row for copy in copies for row in copy["files"]]

    of_run = told("--run", run, "--trust")
    assert {row["file"]: row["part"] for row in of_run} == part_of
    assert told("--seed", 3) == of_run
    assert told() != of_run


def test_a_run_without_test_images_says_nothing(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    ddcnn.fit(images, labels, model="tests.strategies.tiny:tiny", grid="2x2", epochs=1, out=tmp_path / "run")
    with pytest.raises(RunError, match="holds no complete run with test images"):
        out_of_fold(tmp_path / "run", ddcnn.as_dataset(images, labels), trust=True)


def test_what_a_limit_leaves_out_is_in_no_part(call: Callable[..., str], photos: Path) -> None:
    told = json.loads(call("data", "check", f"folder:{photos}", "--json", "--set", "data.limit_train=3"))
    for copy in told["copies"]:
        parts = {row["part"] for row in copy["files"]} - {None}
        assert copy["in_two_parts"] == (len(parts) > 1)


def test_copies_of_one_patient_are_in_one_part(call: Callable[..., str], tmp_path: Path) -> None:
    """As in a training with the same pattern; without it, chance decides."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for patient in range(20):
            image = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8))
            for visit in (1, 2):
                image.save(tmp_path / name / f"{patient:02}-{visit}.png")

    def torn(*more: str) -> int:
        told = json.loads(call("data", "check", f"folder:{tmp_path}", "--json", *more))
        assert len(told["copies"]) == 40
        return sum(one["in_two_parts"] for one in told["copies"])

    assert torn() > 4
    assert torn("--group-pattern", r"(\w+/\d+)-") == 0

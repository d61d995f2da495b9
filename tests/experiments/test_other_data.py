"""Data that moved, that changed under the old name, or that mean something else by their pixels."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config, DataConfig
from ddcnn.data import open_data
from ddcnn.data.npz import read_npz
from ddcnn.data.sources import SOURCES, register_source
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError, DecompositionError, InterruptionError, RunError
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import best_strategy
from ddcnn.training import Progress
from tests.data.volumes import save_nifti, scan


class Interrupting(Progress):
    def epoch(self, row: dict[str, Any]) -> None:
        raise InterruptionError(signal.SIGTERM)


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Write bright left or right halves."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 60, (60, 6, 8), dtype=np.uint8)
    images[labels == 0, :, :4] += 150
    images[labels == 1, :, 4:] += 150
    (tmp_path / "old").mkdir()
    np.savez(tmp_path / "old" / "d.npz", images=images, labels=labels)
    return tmp_path / "old" / "d.npz"


def trained(
    bars: Path, out: Path, progress: Progress | None = None, *, job: Any = ddcnn.train, **data: Any
) -> ddcnn.Comparison:
    values = {
        "data": {"source": f"npz:{bars}"} | data,
        "decomposition": {"grid": "1x2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 3, "batch_size": 12, "lr": 0.05},
        "aggregation": {"epochs": 2, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": out,
    }
    found: ddcnn.Comparison = job(Config.parse(values), progress=progress)
    return found


def edit(path: Path, images: Any = None, labels: Any = None) -> None:
    arrays = dict(np.load(path))
    if images is not None:
        arrays["images"] = images(arrays["images"])
    if labels is not None:
        arrays["labels"] = labels(arrays["labels"])
    np.savez(path, **arrays)


class Noting(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


EDITS = {
    "exchanged": {"images": lambda x: x[::-1].copy()},
    "one is black": {"images": lambda x: np.where(np.arange(60)[:, None, None] == 7, 0, x).astype(np.uint8)},
    "relabelled": {"labels": lambda y: np.where(np.arange(60) == 5, 1 - y, y)},
    "turned": {"images": lambda x: x[:, ::-1].copy()},
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_changed_under_the_old_name(bars: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    trained(bars, tmp_path / "run")
    with pytest.raises(InterruptionError):
        trained(bars, tmp_path / "begun", Interrupting())
    assert ddcnn.evaluate(tmp_path / "run", trust=True)["part"] == "test"
    edit(bars, **change)
    with pytest.raises(DataError, match=r"is not what the run was trained on: .* of 60 images or labels were changed"):
        ddcnn.evaluate(tmp_path / "run", trust=True)
    with pytest.raises(RunError, match="began with other data or another configuration"):
        ddcnn.resume(tmp_path / "begun", trust=True)


def test_among_equals_the_last_strategy_answers(bars: Path, tmp_path: Path) -> None:
    """Every strategy is right about bright halves; that the subdomains' votes are shown is what a user came for."""
    found = trained(bars, tmp_path / "run", job=ddcnn.compare)
    accuracies = {row["name"]: row["validation_accuracy"] for row in found.results["strategies"]}
    assert accuracies["global"] == accuracies["transfer"] == max(accuracies.values())
    assert best_strategy(RunFolder(tmp_path / "run")) == "transfer"


def test_renamed_classes(bars: Path, tmp_path: Path) -> None:
    """The images and the numbers of the labels are the same: each decision would be called what it is not."""
    with pytest.raises(InterruptionError):
        trained(bars, tmp_path / "begun", Interrupting())
    np.savez(bars, **np.load(bars), classes=np.array(["left", "right"]))
    with pytest.raises(RunError, match="begun began with a class '0', which is called 'left' now; rename it back"):
        ddcnn.resume(tmp_path / "begun", trust=True)


def test_folds_do_not_go_on_with_other_images(bars: Path, tmp_path: Path) -> None:
    """Killed between two folds: the first is complete, of the second there is nothing yet."""

    class Second(Progress):
        def note(self, text: str) -> None:
            if text == "fold 2 of 2":
                raise InterruptionError(signal.SIGTERM)

    with pytest.raises(InterruptionError):
        trained(bars, tmp_path / "folds", Second(), job=ddcnn.compare, folds="2")
    assert (tmp_path / "folds/folds/0/manifest.json").is_file()
    assert not (tmp_path / "folds/folds/1").exists()
    kept = bars.read_bytes()
    edit(bars, **EDITS["turned"])
    with pytest.raises(RunError, match="folds began with other data or another configuration"):
        ddcnn.resume(tmp_path / "folds", trust=True)
    bars.write_bytes(kept)
    ddcnn.resume(tmp_path / "folds", compute={"engine": "processes", "workers": 1}, trust=True)
    engines = [Config.read(tmp_path / f"folds/folds/{fold}/config.yaml").compute.engine for fold in (0, 1)]
    assert engines == ["in_process", "processes"]  # the engine that was asked for is used for what is left


@pytest.mark.parametrize("job", [ddcnn.train, ddcnn.compare])
def test_a_run_does_not_become_a_class_of_its_own_data(tmp_path: Path, job: Any) -> None:
    for name in ("photos/a", "photos/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    values: dict[str, Any] = {"data": {"source": f"folder:{tmp_path / 'photos'}"}}
    for out in (tmp_path / "photos" / "run", tmp_path / "link" / "a" / "run"):
        for folds in (None, "2"):
            data = values["data"] | ({"folds": folds} if folds and job is ddcnn.compare else {})
            with pytest.raises(RunError, match=r"run would lie in .*photos, among the images; choose another --out"):
                job(Config.parse({"data": data, "out": out}))
    assert sorted(path.name for path in (tmp_path / "photos").rglob("*")) == ["a", "b"]


def test_images_were_added(bars: Path, tmp_path: Path) -> None:
    trained(bars, tmp_path / "run")
    edit(bars, images=lambda x: np.concatenate([x[:2], x]), labels=lambda y: np.concatenate([y[:2], y]))
    with pytest.raises(DataError, match="is not what the run was trained on: 2 of 60"):
        ddcnn.evaluate(tmp_path / "run", trust=True)


def test_what_was_learned_from_is_counted(bars: Path, tmp_path: Path) -> None:
    trained(bars, tmp_path / "run")
    shutil.copy(bars, tmp_path / "copy.npz")
    found = ddcnn.evaluate(tmp_path / "run", data=DataConfig(source=f"npz:{tmp_path / 'copy.npz'}"), trust=True)
    assert (found["part"], found["samples"], found["learned_from"]) == ("all", 60, 48)
    assert ddcnn.evaluate(tmp_path / "run", trust=True)["learned_from"] == 0


def test_what_was_noticed_in_the_data_is_said_and_kept(bars: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(bars))
    np.savez(bars, **arrays, classes=np.array(["cat", "Cat"]))
    progress = Noting()
    trained(bars, tmp_path / "run", progress)
    (note,) = json.loads((tmp_path / "run" / "data.json").read_text())["notes"]
    for each in ("cat", "Cat", "30"):  # with the number of images
        assert each in note
    assert f"data: {note}" in progress.notes


def test_pixels_of_another_scale(bars: Path, tmp_path: Path) -> None:
    trained(bars, tmp_path / "run")
    images = torch.from_numpy(np.load(bars)["images"])[:5, None]
    network = ddcnn.load(tmp_path / "run", trust=True)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(network(images.float()), expected)
    with pytest.raises(DataError, match=r"they look scaled to 0..1"):
        network(images / 255)
    np.savez(
        tmp_path / "unit.npz", images=np.load(bars)["images"].astype(np.float32) / 255, labels=np.load(bars)["labels"]
    )
    with pytest.raises(DataError, match=r"was trained on uint8 in .*, got float32"):
        ddcnn.evaluate(tmp_path / "run", data=DataConfig(source=f"npz:{tmp_path / 'unit.npz'}"), trust=True)
    trained(tmp_path / "unit.npz", tmp_path / "unit")
    with pytest.raises(DataError, match="was trained on float32 in 0"):
        ddcnn.evaluate(tmp_path / "unit", data=DataConfig(source=f"npz:{bars}"), trust=True)
    with pytest.raises(DataError, match="was trained on float32"):
        ddcnn.load(tmp_path / "unit", trust=True)(images)
    with pytest.raises((DataError, DecompositionError), match=r"expected images|take images of"):
        network(images[..., :5])


def test_a_store_and_its_source_are_the_same_data(tmp_path: Path) -> None:
    """The window of the scans, the classes that labels make, and the content of each scan are known to the store."""
    rows = ["file,label"]
    for i in range(20):
        save_nifti(tmp_path / f"{i}.nii.gz", scan(i))
        rows.append(f"{i}.nii.gz,{i % 3}")
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    read = DataConfig(
        source=f"csv:{tmp_path / 'scans.csv'}", window=(-900, 300), classes={"b": ("1", "2"), "a": ("0",)}
    )
    write_store(open_data(read), tmp_path / "s.zarr", Grid((1, 2, 1)), workers=1)
    values = {
        "data": {"source": f"zarr:{tmp_path / 's.zarr'}", "test": 0.3},
        "decomposition": {"grid": "1x2x1"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1, "batch_size": 4},
        "aggregation": {"name": "average"},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "out": tmp_path / "run",
    }
    ddcnn.train(Config.parse(values))
    expected = ddcnn.evaluate(tmp_path / "run", trust=True)
    assert (expected["part"], expected["samples"], expected["learned_from"]) == ("test", 6, 0)
    for config in (DataConfig(source=read.source), read):  # the window and the classes are taken over
        found = ddcnn.evaluate(tmp_path / "run", data=config, trust=True)
        assert (found["part"], found["samples"], found["learned_from"]) == ("all", 20, 14)
    for change in ({"window": (-1000.0, 400.0)}, {"classes": {"b": ("2",), "a": ("0", "1")}}):
        with pytest.raises(DataError, match=r"was trained with data\.(window|classes) = .*; read them as then"):
            ddcnn.evaluate(tmp_path / "run", data=read.model_copy(update=change), trust=True)


@pytest.fixture
def moving() -> Iterator[None]:
    """Register a source that looks for its file in `data.directory`."""

    @register_source("moving")
    def _read(config: DataConfig) -> ddcnn.Dataset:
        return read_npz(config.model_copy(update={"source": f"npz:{config.directory / 'd.npz'}"}))

    yield
    del SOURCES["moving"]


def test_data_that_moved(bars: Path, tmp_path: Path, moving: None) -> None:
    with pytest.raises(InterruptionError):
        trained(bars, tmp_path / "begun", Interrupting(), source="moving", directory=tmp_path / "old")
    expected = trained(bars, tmp_path / "whole", source="moving", directory=tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(DataError, match="does not exist"):
        ddcnn.resume(tmp_path / "begun", trust=True)
    resumed = ddcnn.resume(tmp_path / "begun", directory=tmp_path / "new", trust=True)
    accuracies = [[row["test_accuracy"] for row in one.results["strategies"]] for one in (expected, resumed)]
    assert accuracies[0] == accuracies[1]
    assert (expected.run / "locals" / "0.safetensors").read_bytes() == (
        resumed.run / "locals" / "0.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("kept", [(0, 1), (1, 2), (2,), (0, 1, 2)])
@pytest.mark.parametrize("form", ["numbers", "words", "other order", "arrays"])
def test_a_test_set_may_lack_a_class(tmp_path: Path, form: str, kept: tuple[int, ...]) -> None:
    """Labels mean what they meant in the training, whichever of them there are."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 60, (90, 6, 9), dtype=np.uint8)
    for k in range(3):
        images[labels == k, :, 3 * k : 3 * k + 3] += 100
    names = np.array(["ant", "bee", "cat"])
    words = {} if form in ("numbers", "arrays") else {"classes": names}
    np.savez(tmp_path / "d.npz", images=images, labels=labels, **words)
    run = trained(tmp_path / "d.npz", tmp_path / "r").run
    there = np.isin(labels, kept) & (np.arange(90) < 50)
    own = labels[there]
    if form == "words":
        np.savez(tmp_path / "other.npz", images=images[there], labels=names[own])
    elif form == "other order":
        present = names[sorted(kept, reverse=True)]
        numbers = np.array([present.tolist().index(names[k]) for k in own])
        np.savez(tmp_path / "other.npz", images=images[there], labels=numbers, classes=present)
    else:
        np.savez(tmp_path / "other.npz", images=images[there], labels=own)
    data: Any = DataConfig(source=f"npz:{tmp_path / 'other.npz'}")
    if form == "arrays":
        data = (images[there], own)
    found = ddcnn.evaluate(run, data=data, trust=True)
    with torch.no_grad():
        decided = ddcnn.load(run, trust=True)(torch.tensor(images[there])[:, None]).argmax(1).numpy()
    assert found["samples"] == len(own)
    assert found["accuracy"] == pytest.approx((decided == own).mean())
    for k, (name, row) in enumerate(found["classes"].items()):
        assert name == (names[k] if words else str(k))
        expected = (decided[own == k] == k).mean() if k in kept else None
        assert row["recall"] == (None if expected is None else pytest.approx(expected))
    lacking = [note for note in found["notes"] if note.startswith("no image is of class")]
    assert len(lacking) == (0 if len(kept) == 3 else 1)


def test_labels_that_the_network_does_not_know_are_refused(bars: Path, tmp_path: Path) -> None:
    run = trained(bars, tmp_path / "r").run
    np.savez(tmp_path / "more.npz", images=np.load(bars)["images"], labels=np.arange(60) % 3)
    with pytest.raises(DataError, match="has the unknown class '2'"):
        ddcnn.evaluate(run, data=DataConfig(source=f"npz:{tmp_path / 'more.npz'}"), trust=True)

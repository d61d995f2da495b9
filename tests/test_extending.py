"""What `docs/how-to/extending.md` shows works as it is shown there, with every strategy, engine and report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid, reassemble
from ddcnn.report import write_report

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "extending.md"
SMALL = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 1, "batch_size": 20},
    "aggregation": {"epochs": 1, "hidden": [4]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}
MODULES = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's files into a folder where Python finds them."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, code in MODULES:
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    return folder


def config(tmp_path: Path, **sections: object) -> Config:
    values = SMALL | {"data": {"source": "stripes:read_stripes"}, "out": tmp_path / "run"} | sections
    return Config.parse(values)


def test_the_page_names_the_commands_of_its_files() -> None:
    commands = re.findall(r"```bash\n(ddcnn .*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)
    assert [name for name, _ in MODULES] == ["nearest_mean", "triangles", "distilled", "stripes", "pool"]
    for (name, code), command in zip(MODULES, commands, strict=True):
        (attribute,) = re.findall(rf"{name}:(\w+)", command)
        assert re.search(rf"^(class|def) {attribute}\b|^{attribute} =", code, re.M)


def test_an_aggregation_with_its_own_training(modules: Path, tmp_path: Path) -> None:
    own = SMALL["aggregation"] | {"name": "nearest_mean:NEAREST_MEAN"}  # type: ignore[operator]
    found = ddcnn.compare(config(tmp_path, aggregation=own))
    names = [row["name"] for row in found.results["strategies"]]
    assert names == ["global", "average", "vote", "cnn-dnn", "nearest-mean", "coherent", "transfer"]
    network = ddcnn.load(found.run, "nearest-mean", trust=True)
    images = ddcnn.open_data(config(tmp_path).data).images
    split = json.loads((found.run / "split.json").read_text())
    with torch.no_grad():
        p = network.local_probabilities(images)
        train = p[split["train"]].flatten(1)
        labels = torch.tensor(split["train"]) % 2
        means = torch.stack([train[labels == k].mean(0) for k in range(2)])
        expected = torch.cdist(p.flatten(1), means).argmin(1)
        assert torch.equal(network(images).argmax(1), expected)
    assert "nearest-mean" in write_report(found.run).read_text()
    with pytest.raises(ddcnn.DdcnnError, match="names code that is not of ddcnn"):
        ddcnn.load(found.run, "nearest-mean")


def test_a_decomposition_of_triangles_on_an_engine(modules: Path, tmp_path: Path) -> None:
    cuts = {"name": "triangles:Triangles"}
    compute = SMALL["compute"] | {"engine": "pool:Pool", "workers": 2, "group": 1}  # type: ignore[operator]
    training = {"epochs": 1, "batch_size": 20, "shift": 2, "flip": True}
    found = ddcnn.compare(config(tmp_path, decomposition=cuts, compute=compute, training=training))
    assert [row["name"] for row in found.results["subdomains"]] == [
        "subdomain 0 (rows 0..15, columns 0..15)",
        "subdomain 1 (rows 0..15, columns 0..15)",
    ]
    assert "<svg" in write_report(found.run).read_text()
    network = ddcnn.load(found.run, "transfer", trust=True)
    x = torch.arange(2 * 256, dtype=torch.uint8).view(2, 1, 16, 16)
    subdomains = network.local_cnns.subdomains
    assert torch.equal(reassemble([s.cut(x) for s in subdomains], subdomains), x)
    changed = x.clone()
    changed[:, :, 0, 15] = 255 - x[:, :, 0, 15]  # above the diagonal
    before, after = network.local_probabilities(x), network.local_probabilities(changed)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_triangles_are_the_same_from_memory_store_and_workers(
    modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{Path(__file__).parents[1]}")
    stripes = config(tmp_path)
    write_store(ddcnn.open_data(stripes.data), tmp_path / "s.zarr", Grid((2, 3), overlap=1), workers=1)
    losses = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, source, engine in (
            ("memory", "stripes:read_stripes", "in_process"),
            ("store", f"zarr:{tmp_path / 's.zarr'}", "in_process"),
            ("workers", "stripes:read_stripes", "processes"),
        ):
            compute = SMALL["compute"] | {"engine": engine, "group": 1, "workers": 1, "threads": 1}  # type: ignore[operator]
            values = {
                "data": {"source": source},
                "decomposition": {"name": "triangles:Triangles"},
                "training": {"epochs": 2, "batch_size": 20, "shift": 2, "flip": True},
                "compute": compute,
                "out": tmp_path / name,
            }
            run = ddcnn.train(Config.parse(SMALL | values)).run
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            losses[name] = [row["train_loss"] for row in rows if row["stage"].startswith("local")]
    finally:
        torch.set_num_threads(threads)
    assert losses["memory"] == losses["store"] == losses["workers"]
    assert len(losses["memory"]) == 4


@pytest.mark.slow
def test_triangles_over_ranks(modules: Path, tmp_path: Path) -> None:
    from tests.engines.on_ranks import ended, start

    command = ["-m", "ddcnn", "train", "--strategy", "coherent", "--data", "stripes:read_stripes", "--epochs", "1",
               "--decomposition", "triangles:Triangles", "--model", "tests.strategies.tiny:tiny", "--batch-size", "20",
               "--precision", "float32", "--backend", "looped"]  # fmt: skip
    accuracies = []
    for count in (1, 2):
        paths = os.pathsep.join(str(p) for p in (Path(__file__).parents[1] / "src", Path(__file__).parents[1], modules))
        out = tmp_path / str(count)
        outcomes = ended(start(count, *command, "--out", str(out), PYTHONPATH=paths))
        assert [code for code, _, _ in outcomes] == [0] * count, outcomes
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        accuracies.append(np.array([row["train_loss"] for row in rows]))
    np.testing.assert_allclose(accuracies[0], accuracies[1], rtol=1e-4)


def test_a_strategy_with_soft_targets(modules: Path, tmp_path: Path) -> None:
    found = ddcnn.train(config(tmp_path, strategy="distilled:DISTILLED"))
    assert [row["name"] for row in found.results["strategies"]] == ["global", "distilled"]
    images = ddcnn.open_data(config(tmp_path).data).images[:5]
    network = ddcnn.load(found.run, trust=True)  # the one that was trained
    with torch.no_grad():
        torch.testing.assert_close(network(images), found.networks["distilled"].eval()(images))
    assert "distilled" in write_report(found.run).read_text()


def test_a_command_finds_them_in_the_present_folder(modules: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (Path(__file__).parents[1] / "src", Path(__file__).parents[1])))
    result = subprocess.run(
        [sys.executable, "-m", "ddcnn", "train", "--data", "stripes:read_stripes", "--engine", "pool:Pool",
         "--model", "tests.strategies.tiny:tiny", "--epochs", "1", "--out", str(tmp_path / "run"), "--set",
         "compute.group=2", "--device", "cpu"],
        cwd=modules, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "CNN-DNN" in result.stdout

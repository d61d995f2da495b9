"""Every decomposition with every strategy and the report, on images and volumes; the same wherever pixels come from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.report import write_report
from ddcnn.report.read import read_run

TINY = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 1, "shift": 1, "flip": True},
    "aggregation": {"epochs": 1},
    "compute": {"backend": "looped"},
}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 80, (60, 6, 8, 10), dtype=np.uint8)
    images[labels == 1, :, :4] += 100
    path = tmp_path_factory.mktemp("volumes") / "v.npz"
    np.savez(path, images=images, labels=labels)
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("name", "coarse", "subdomains", "title"),
    [
        ("grid:2x2", "auto", 5, "2 × 2 grid, coarse level"),
        ("interleaved:2x2", None, 4, "interleaved 2 × 2"),
        ("triangles", "5x7", 5, "triangles 1 × 1, coarse level 5 × 7"),
        ("voronoi:3,mask_channel=true", "6", 4, "voronoi 3, coarse level 6"),
        ("rings:2x2", None, 4, "rings 2 × 2"),
        ("boxes:3,size=0.4,seed=1", "auto", 4, "boxes 3, size 0.4, seed 1, coarse level"),
    ],
)
def test_images(make_config: Callable, name: str, coarse: str | None, subdomains: int, title: str) -> None:
    _compared(make_config(**TINY, decomposition={"name": name, "coarse": coarse}), subdomains, title)


@pytest.mark.parametrize(
    ("name", "coarse", "subdomains", "title"),
    [
        ("grid:1x2x2", "3x4x5", 5, "1 × 2 × 2 grid, coarse level 3 × 4 × 5"),
        ("interleaved:1x2x2", "auto", 5, "interleaved 1 × 2 × 2, coarse level"),
        ("triangles", None, 4, "triangles 1 × 1"),
        ("voronoi:3", "auto", 4, "voronoi 3, coarse level"),
        ("sectors:3,mask_channel=true", None, 3, "rings 1 × 3"),
        ("boxes:0-6x0-4x0-10+0-6x4-8x0-10", None, 2, "boxes 2, given"),
    ],
)
def test_volumes(
    make_config: Callable, volumes: str, name: str, coarse: str | None, subdomains: int, title: str
) -> None:
    config = make_config(**TINY, decomposition={"name": name, "coarse": coarse}, data={"source": volumes})
    _compared(config, subdomains, title)


def _compared(config: ddcnn.Config, subdomains: int, title: str) -> None:
    found = ddcnn.compare(config)
    names = [row["name"] for row in found.results["strategies"]]
    assert names == ["global", "average", "vote", "cnn-dnn", "coherent", "transfer"]
    assert len(found.results["subdomains"]) == subdomains
    images = ddcnn.open_data(config.data).images[:4]
    assert isinstance(images, torch.Tensor)
    loaded = ddcnn.load(found.run, "transfer", trust=True, backend="looped")  # the network is foreign, not its cuts
    with torch.no_grad():
        assert torch.equal(loaded(images), found.networks["transfer"].eval()(images))
    page = write_report(found.run).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert f"<span>·</span> {title}" in page
    assert "The decomposition" in page
    run = read_run(found.run)
    for n, seen in run.subimages.items():
        expected = loaded.local_cnns.subdomains[n].cut(torch.from_numpy(run.images))
        assert np.array_equal(seen, expected.numpy())


def test_nothing_foreign_is_needed_to_load_a_shape(make_config: Callable) -> None:
    cuts = {"name": "voronoi:3,mask_channel=true", "coarse": "auto"}
    own = {"name": "resnet20", "width_factor": 0.1}
    run = ddcnn.train(make_config(**TINY | {"model": own}, decomposition=cuts)).run
    network = ddcnn.load(run)
    assert [type(s).__name__ for s in network.local_cnns.subdomains] == ["Region"] * 3 + ["Reduced"]
    saved = ddcnn.Config.read(run / "config.yaml").decomposition
    assert (saved.name, saved.options, saved.coarse) == ("voronoi", {"parts": 3, "mask_channel": True}, "auto")


@pytest.mark.parametrize("engine", ["store", "processes"])
def test_the_same_as_from_memory(make_config: Callable, tmp_path: Path, engine: str, monkeypatch: Any) -> None:
    """A store is cut along another grid; a worker is sent the pixels that its subdomains can come to see."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))
    compute = {"backend": "looped", "group": 2, "threads": 1, "workers": 1}
    values = TINY | {"decomposition": {"name": "voronoi:2,mask_channel=true", "coarse": "5x8"}, "compute": compute}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = make_config("memory", **values)
        ddcnn.train(config)
        other: dict[str, Any] = {"compute": compute | {"engine": "processes"}}
        if engine == "store":
            write_store(ddcnn.open_data(config.data), tmp_path / "s.zarr", Grid((2, 3), overlap=1), workers=1)
            other = {"data": {"source": f"zarr:{tmp_path / 's.zarr'}"}}
        ddcnn.train(make_config("other", **values | other))
    finally:
        torch.set_num_threads(threads)
    for n in range(3):
        one, two = (tmp_path / where / "locals" / f"{n}.safetensors" for where in ("memory", "other"))
        assert one.read_bytes() == two.read_bytes(), n
    accuracies = [
        [row["test_accuracy"] for row in json.loads((tmp_path / where / "comparison.json").read_text())["strategies"]]
        for where in ("memory", "other")
    ]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_two_levels_over_ranks(source: str, tmp_path: Path) -> None:
    from tests.engines.on_ranks import ended, start

    command = ["-m", "ddcnn", "train", "--strategy", "coherent", "--data", source, "--epochs", "1", "--coarse",
               "--grid", "1x2", "--model", "tests.strategies.tiny:tiny", "--batch-size", "16", "--precision", "float32",
               "--backend", "looped"]  # fmt: skip
    losses = []
    for count in (1, 2):
        out = tmp_path / str(count)
        outcomes = ended(start(count, *command, "--out", str(out)))
        assert [code for code, _, _ in outcomes] == [0] * count, outcomes
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append(np.array([row["train_loss"] for row in rows]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"name": "voronoi:200"}, "leaves subdomain .* of images of 16x18 pixels empty; use fewer subdomains"),
        ({"coarse": "17x4"}, "coarse level 17x4 is larger than the images, 16x18 pixels; use a smaller size"),
        ({"coarse": "4x4", "grid": "1x1"}, r"subdomain 1 \(the whole image, reduced .*; use a larger coarse level"),
    ],
)
def test_what_cannot_be_used_leaves_no_run(make_config: Callable, tmp_path: Path, cuts: dict, message: str) -> None:
    with pytest.raises(ddcnn.DdcnnError, match=message) as caught:
        ddcnn.train(make_config(decomposition=cuts, model={"name": "vgg9"}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

"""`ddcnn data prepare`, and `ddcnn data info` of what it made."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddcnn import Dataset
from ddcnn.data.lazy import Lazy


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 6, 8), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=[0, 1] * 10, classes=["cat", "dog"])
    return tmp_path / "d.npz"


def test_prepare_and_info(call: Callable, arrays: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    code, out, err = call("data", "prepare", f"npz:{arrays}", store, "--grid", "2x3", "--overlap", 1, "--workers", 1)
    assert (code, out, err) == (0, f"store: {store}\n", "")
    picture = tmp_path / "p.png"
    facts = json.loads(call("data", "info", store, "--json", "--picture", picture).out)
    assert facts["samples"] == 20
    assert facts["classes"] == {"cat": 10, "dog": 10}
    assert facts["image_shape"] == [1, 6, 8]
    assert (facts["store"]["grid"], facts["store"]["overlap"]) == ([2, 3], [1, 1])
    assert f"data prepare npz:{arrays} {store} --grid 2x3" in facts["store"]["provenance"]["command"]
    assert facts["store"]["provenance"]["config"]["source"] == f"npz:{arrays}"
    assert "torch" in facts["store"]["provenance"]["versions"]
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 100
    assert call("data", "info", store, "--picture", picture).code == 0  # its own may be replaced
    for name in ("p.svg", "p.pdf", "p.svg", "p.pdf"):
        assert call("data", "info", store, "--picture", tmp_path / name).code == 0
    Image.new("RGB", (8, 8)).save(picture)
    before = picture.read_bytes()
    failed = call("data", "info", store, "--picture", picture)
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert "exists and was not drawn by ddcnn data info --picture; choose another --picture" in failed.err
    assert picture.read_bytes() == before
    text = call("data", "info", f"zarr:{store}").out
    assert "grid        2x3, stored with an overlap of 1x1 pixels\n" in text
    assert "chunks      1x4x3, 1x4x4, 1x4x5 (channels x pixels), of one sample each\n" in text
    again = call("data", "prepare", f"npz:{arrays}", store, "--grid", "2x3", "--overlap", 1, "--quiet")
    assert again == (0, "", "")


def test_a_store_says_what_its_source_said(call: Callable, refused: Callable, tmp_path: Path) -> None:
    photos, store = tmp_path / "photos", tmp_path / "s.zarr"
    for name in ("a", "b\x1b[2J"):
        (photos / name / "@eaDir").mkdir(parents=True)
        for i in range(9):
            Image.new("RGBA" if i % 2 else "RGB", (8, 8), (i, 0, 0, 99)).save(photos / name / f"{i}.png")
        (photos / name / "0.heic").write_bytes(b"")
    (photos / "a" / "x.png").write_bytes(b"")
    options = [f"folder:{photos}", "--set", "data.on_bad_file=skip", "--image-size", "6x4"]
    source = json.loads(call("data", "info", *options, "--json").out)
    assert (len(source["notes"]), len(source["bad_files"])) == (4, 1)
    assert call("data", "prepare", options[0], store, *options[1:], "--grid", "2x1").code == 0
    facts = json.loads(call("data", "info", store, "--json").out)
    for facts_of in (source, facts):
        del facts_of["name"], facts_of["store"], facts_of["source"]
    assert facts == source
    text = call("data", "info", store).out
    assert "left out: " in text
    assert "\x1b" not in text
    for command in (["info"], ["prepare", "--grid", "2x1"]):
        line = refused("data", *command, options[0], *([tmp_path / "t.zarr"] * (len(command) > 1)), "--set", "seed=1")
        assert "--set 'seed=1': here are only fields of the data" in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--grid", "2x2x2"], "grid 2x2x2 has 3 axes, but the images are 6x8"),
        (["--grid", "9x2"], "grid 9x2 is finer than the images, 6x8 pixels"),
        (["--grid", "2x2", "--overlap", "x"], "decomposition.overlap"),
        (["--grid", "2x2", "--workers", "0"], "--workers"),
        ([], "give either --grid, such as 2x2, or --decomposition"),
        (["--grid", "2x2", "--decomposition", "voronoi:3"], "give either --grid, such as 2x2, or --decomposition"),
        (["--decomposition", "voronoi:40"], "voronoi40 leaves subdomain"),
        (["--decomposition", "voroni:3"], "'voroni' is unknown: did you mean 'voronoi'"),
    ],
)
def test_what_is_refused(refused: Callable, arrays: Path, tmp_path: Path, options: list[str], expected: str) -> None:
    assert expected in refused("data", "prepare", f"npz:{arrays}", tmp_path / "s.zarr", *options)
    assert not (tmp_path / "s.zarr").exists()


def test_what_is_in_the_way_is_kept(refused: Callable, arrays: Path, tmp_path: Path) -> None:
    assert "should lie apart" in refused("data", "prepare", f"npz:{arrays}", arrays, "--grid", "2x2")
    (tmp_path / "thesis.tex").write_text("years of work")
    line = refused("data", "prepare", f"npz:{arrays}", tmp_path / "thesis.tex", "--grid", "2x2")
    assert "exists and is not a store" in line
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert "picture draws the subdomains of a store" in refused(
        "data", "info", f"npz:{arrays}", "--picture", tmp_path / "p.png"
    )


@pytest.mark.parametrize(
    ("decomposition", "grid"),
    [("boxes:9", [3, 3]), ("interleaved:2x2", [1, 1]), ("voronoi:4", [2, 2]), ("grid:2x3", [2, 3])],
)
def test_a_store_is_cut_as_suits_a_decomposition(
    call: Callable, arrays: Path, tmp_path: Path, decomposition: str, grid: list[int]
) -> None:
    store = tmp_path / "s.zarr"
    options = ["--decomposition", decomposition, "--workers", 1, "--quiet"]
    assert call("data", "prepare", f"npz:{arrays}", store, *options) == (0, "", "")
    assert json.loads(call("data", "info", store, "--json").out)["store"]["grid"] == grid


def ended_in_the_middle(_config: object) -> Dataset:
    """Return images of which the second one is there only after a signal that ends the process was sent."""

    def image(i: int) -> torch.Tensor:
        if i == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return torch.full((1, 6, 8), i, dtype=torch.uint8)

    return Dataset("made", Lazy(image, (20, 1, 6, 8), torch.uint8), torch.arange(20) % 2, ("cat", "dog"))


def test_ended_by_a_signal_it_says_how_to_go_on_and_where_the_other_store_is(
    call: Callable, arrays: Path, tmp_path: Path
) -> None:
    store, source = tmp_path / "s.zarr", f"{__name__}:ended_in_the_middle"
    assert call("data", "prepare", f"npz:{arrays}", store, "--grid", "2x2", "--quiet").code == 0
    code, out, err = call("data", "prepare", source, store, "--grid", "2x2", "--force", "--workers", "1")
    assert (code, out) == (75, "")
    assert f"go on with: ddcnn data prepare {source} {store} --grid 2x2 --force --workers 1\n" in err
    assert f"the store that it replaces is in {store}/.replaced-1 until then\n" in err
    assert err.endswith("interrupted\n")
    assert (store / ".replaced-1" / "zarr.json").is_file()

"""`ddcnn explain`: what it prints and draws."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddcnn
from tests.cli.trained import train_small

pytest.importorskip("captum", reason="pip install 'ddcnn[explain]'")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "explain.md"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in zip(("a.png", "b[red].png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_json_agrees_with_the_network(call: Callable, made_run: Path, images: Path) -> None:
    code, out, err = call("explain", made_run, images, "--json", "--class", "dog")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["strategy"], found["notes"]) == ("cnn-dnn", [])
    expected = ddcnn.load(made_run).explain(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), 1)
    for b, row in enumerate(found["images"]):
        assert row["explained"] == "dog"
        assert row["explained_probability"] == pytest.approx(float(expected.probabilities[b, 1]), abs=1e-5)
        assert [part["box"] for part in row["subdomains"]] == [[[0, 8], [0, 16]], [[8, 16], [0, 16]]]
        for n, part in enumerate(row["subdomains"]):
            assert part["for_explained"] == pytest.approx(float(expected.local_probabilities[b, n, 1]), abs=1e-5)
            assert part["ablation"] == pytest.approx(float(expected.ablation[b, n]), abs=1e-5)
            assert part["attribution"] == pytest.approx(float(expected.attribution[b, n]), abs=1e-5)
        if row["brightest"] is not None:
            assert float(expected.heat_map[b][tuple(row["brightest"])]) == float(expected.heat_map[b].max())


def test_the_class_is_that_of_predict_where_thresholds_decide(call: Callable, tmp_path: Path) -> None:
    run = train_small(tmp_path, threshold=0.9)  # bright only above 0.9
    images = np.load(tmp_path / "d.npz")["images"]
    np.savez(tmp_path / "all.npz", images=images)
    network = ddcnn.load(run, "cnn-dnn", trust=True)
    expected = network.predict(images).tolist()
    options = (run, tmp_path / "all.npz", "--strategy", "cnn-dnn", "--trust", "--json")
    rows = json.loads(call("explain", *options)[1])
    assert [row["class"] for row in rows["images"]] == [row["explained"] for row in rows["images"]] == expected
    assert rows["notes"] == ["decides for bright above a probability of 0.900, as chosen in the training"]
    assert [row["class"] for row in json.loads(call("predict", *options)[1])["predictions"]] == expected


def test_more_images_than_are_drawn_are_counted(call: Callable, made_run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", images=np.repeat(PIXELS, 10, 0))
    code, out, _ = call("explain", made_run, tmp_path / "many.npz", "--out", tmp_path / "why.png")
    assert code == 0
    assert "has the first 16 of 20 images" in out.replace("\n", " ")


def test_table_and_picture(call: Callable, made_run: Path, images: Path, tmp_path: Path) -> None:
    code, out, err = call("explain", made_run, images, "--out", tmp_path / "why.png")
    assert (code, err) == (0, "")
    for part in ("a.png", "b[red].png", "lost without it", "attribution", "strategy: cnn-dnn", "heat maps: "):
        assert part in out.replace("\n", "")  # a long path is wrapped
    assert "\x1b" not in out
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_a_missing_local_cnn_and_one_that_decides_alone(call: Callable, degraded_run: Path, images: Path) -> None:
    found = json.loads(call("explain", degraded_run, images / "a.png", "--json").out)
    (row,) = found["images"]
    assert row["subdomains"][0]["class"] is None
    assert row["subdomains"][1]["ablation"] is None
    assert found["notes"] == ["no attribution: one subdomain alone has decided"]
    assert "missing" in call("explain", degraded_run, images / "a.png").out


def test_the_example_of_the_page(
    made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (tmp_path / "runs").mkdir()
    shutil.copytree(made_run, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {"images": PIXELS.transpose(0, 3, 1, 2)})
    assert "torch.Size([2, 16, 16])" in capsys.readouterr().out


def test_what_cannot_be_explained(refused: Callable, made_run: Path, images: Path, tmp_path: Path) -> None:
    def said(*more: object) -> str:
        return refused("explain", made_run, images, *more)

    assert "the run has no class 'dogs': did you mean 'dog'?" in said("--class", "dogs")
    assert "should end in .png, .svg, .pdf" in said("--out", tmp_path / "x.jpg")
    assert "is not a folder; make it" in said("--out", tmp_path / "no" / "x.png")
    assert "does not exist" in refused("explain", made_run, tmp_path / "none.png")


def test_the_good_files_are_explained_and_the_bad_one_is_named(call: Callable, made_run: Path, images: Path) -> None:
    (images / "b.png").write_text("no image")
    Image.fromarray(PIXELS[0]).convert("LA").resize((20, 24)).point(lambda v: v // 2).save(images / "c.png")
    code, out, err = call("explain", made_run, images, images / "\x1b[31mnone.png", "--json")
    assert code == 1
    assert [Path(row["file"]).name for row in json.loads(out)["images"]] == ["a.png", "b[red].png", "c.png"]
    note, *errors = err.splitlines()
    done = "resized to 16x16 (stretch): 1 file of another size; laid on white, because transparent: 1 file"
    assert note == f"note: {done}"
    assert [line.startswith("error: ") for line in errors] == [True, True]
    assert "\x1b" not in err
    assert "b.png" in err
    assert "\\x1b[31mnone.png does not exist" in err
    code, out, err = call("explain", made_run, images / "b.png")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_only_a_heat_map_is_replaced(call: Callable, refused: Callable, made_run: Path, images: Path) -> None:
    photo = images / "a.png"
    before = photo.read_bytes()
    assert "exists and was not drawn by ddcnn explain; choose another --out" in refused(
        "explain", made_run, photo, "--out", photo
    )
    assert photo.read_bytes() == before
    for name in ("a.png", "b[red].png"):
        assert call("explain", made_run, images / name, "--out", images / "why.png").code == 0


def test_names_in_a_picture_are_no_formulas(call: Callable, made_run: Path, images: Path, tmp_path: Path) -> None:
    name = "$\\frac{$ 猫 \x1b[2J.png"
    (images / "a.png").rename(images / name)
    code, out, err = call("explain", made_run, images / name, "--out", tmp_path / "why.png")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\\x1b[2J.png" in out


def test_captum_is_named_where_it_is_missing(
    refused: Callable, made_run: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert "pip install 'ddcnn[explain]'" in refused("explain", made_run, images)

"""`ddcnn predict`: files in, classes and votes out."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    Image.fromarray(PIXELS[0]).save(folder / "a.png")
    Image.fromarray(PIXELS[1]).save(folder / "deeper" / "b.png")
    np.save(folder / "c.npy", PIXELS[2])
    (folder / ".hidden.png").touch()
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_json_agrees_with_the_network(call: Callable, made_run: Path, images: Path) -> None:
    code, out, err = call("predict", made_run, images, "--format", "json", "--batch-size", 2)
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [Path(row["file"]).name for row in rows] == ["a.png", "c.npy", "b.png"]
    network = load(made_run)
    with torch.no_grad():
        x = torch.from_numpy(PIXELS[[0, 2, 1]]).permute(0, 3, 1, 2)
        local, together = network.local_probabilities(x), network(x).softmax(1)
    for row, p, votes in zip(rows, together, local, strict=True):
        assert list(row) == ["file", "class", "probability", "probabilities", "subdomains"]
        assert list(row["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["class"]]
        assert [part["index"] for part in row["subdomains"]] == [0, 1]
        assert [part["probability"] for part in row["subdomains"]] == pytest.approx(votes.amax(1).tolist(), abs=1e-5)


def test_table(call: Callable, made_run: Path, images: Path) -> None:
    code, out, err = call("predict", made_run, images)
    assert (code, err) == (0, "")
    assert "votes of subdomains" in out
    assert out.startswith("strategy: cnn-dnn")
    assert "\x1b" not in out
    assert str(images / "deeper" / "b.png") in out  # not cut to the width of a terminal that is not there


def test_csv(call: Callable, made_run: Path, images: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call("predict", made_run, images, "--format", "csv").out)))
    assert len(rows) == 3
    assert list(rows[0]) == [
        *("file", "class", "probability", "probability_cat", "probability_dog", "probability_[red]x"),
        *(f"subdomain_{n}_{what}" for n in (0, 1) for what in ("class", "probability")),
    ]
    for row, found in zip(rows, json.loads(call("predict", made_run, images, "--format", "json").out), strict=True):
        assert {name: float(row[f"probability_{name}"]) for name in found["probabilities"]} == found["probabilities"]


def test_one_object_of_json(call: Callable, refused: Callable, made_run: Path, images: Path) -> None:
    found = json.loads(call("predict", made_run, images, "--json").out)
    rows = json.loads(call("predict", made_run, images, "--format", "json").out)
    about = {"run": str(made_run), "strategy": "cnn-dnn", "classes": ["cat", "dog", "[red]x"], "resized": 0}
    assert found == about | {"predictions": rows}
    assert "exclude each other" in refused("predict", made_run, images, "--json", "--format", "csv")


def test_global_has_no_subdomains(call: Callable, made_run: Path, images: Path) -> None:
    options = ["--strategy", "global", "--format"]
    assert json.loads(call("predict", made_run, images / "a.png", *options, "json").out)[0]["subdomains"] == []
    assert call("predict", made_run, images / "a.png", *options, "csv").out.startswith(
        "file,class,probability,probability_cat,probability_dog,probability_[red]x\n"
    )
    assert "votes" not in call("predict", made_run, images / "a.png", *options, "table").out


def test_a_missing_local_cnn_has_no_vote(call: Callable, degraded_run: Path, images: Path) -> None:
    (row,) = json.loads(call("predict", degraded_run, images / "a.png", "--format", "json").out)
    with torch.no_grad():
        p = load(degraded_run)(torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2)).softmax(1)
    assert list(row["probabilities"].values()) == pytest.approx(p[0].tolist(), abs=1e-5)
    assert row["subdomains"][0] == {"index": 0, "class": None, "probability": None}
    assert row["subdomains"][1]["probability"] > 0.3
    (row,) = csv.DictReader(io.StringIO(call("predict", degraded_run, images / "a.png", "--format", "csv").out))
    assert (row["subdomain_0_class"], row["subdomain_0_probability"]) == ("", "")
    assert "missing  " in call("predict", degraded_run, images / "a.png").out


@pytest.mark.parametrize("how", [None, "stretch", "crop", "pad"])
def test_images_of_another_size_are_resized_which_is_said_once(
    call: Callable, made_run: Path, tmp_path: Path, how: str | None
) -> None:
    for i in range(3):
        Image.fromarray(PIXELS[i].repeat(2 if i else 1, 0)).save(tmp_path / f"{i}.png")
    options = [] if how is None else ["--resize", how]
    code, out, err = call("predict", made_run, tmp_path, "--format", "json", *options)
    assert code == 0
    assert err == f"note: resized to 16x16 ({how or 'stretch'}): 2 files of another size\n"
    given = Image.open(tmp_path / "2.png")
    if how == "crop":
        given = given.crop((0, 8, 16, 24))
    elif how == "pad":
        given = ImageOps.pad(given, (16, 16), Image.Resampling.BILINEAR)
    else:
        given = given.resize((16, 16), Image.Resampling.BILINEAR)
    with torch.no_grad():
        p = load(made_run)(torch.from_numpy(np.array(given)).permute(2, 0, 1)[None]).softmax(1)[0]
    assert list(json.loads(out)[2]["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-5)


def test_transparent_images_are_laid_on_white_which_is_said_once(
    call: Callable, made_run: Path, tmp_path: Path
) -> None:
    for i, alpha in enumerate((255, 0, 99)):
        image = Image.fromarray(np.dstack([PIXELS[i], np.full((16, 16), alpha, np.uint8)]))
        (image.resize((24, 20)) if i == 2 else image).save(tmp_path / f"{i}.png")
    code, _, err = call("predict", made_run, tmp_path / "1.png")
    assert (code, err) == (0, "note: laid on white, because transparent: 1 file\n")
    code, _, err = call("predict", made_run, tmp_path)
    said = "resized to 16x16 (stretch): 1 file of another size; laid on white, because transparent: 2 files"
    assert (code, err) == (0, f"note: {said}\n")


def test_images_of_another_size_are_refused_if_that_is_asked_for(
    refused: Callable, made_run: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 24)).save(tmp_path / "big.png")
    line = refused("predict", made_run, tmp_path / "big.png", "--resize", "no")
    assert "expected 16x16 pixels (H x W) as in training, got 24x20; leave --resize no out" in line


def test_the_good_files_are_answered_and_the_bad_one_is_named(
    call: Callable, refused: Callable, made_run: Path, images: Path
) -> None:
    whole = (images / "a.png").read_bytes()
    good = [row["file"] for row in json.loads(call("predict", made_run, images, "--format", "json").out)]
    (images / "\x1b[2Jm.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = call("predict", made_run, images, "--batch-size", 2, "--format", "json")
    assert code == 1
    assert [row["file"] for row in json.loads(out)] == good
    assert err.count("\n") == 1
    assert r"\x1b[2Jm.png cannot be read" in err
    assert "\x1b" not in err
    assert "m.png cannot be read" in refused("predict", made_run, images / "\x1b[2Jm.png")


def test_every_bad_name_is_named_and_the_others_are_answered(call: Callable, made_run: Path, images: Path) -> None:
    (images / "empty").mkdir()
    np.savez(images / "none.npz", images=np.zeros((0, 3, 16, 16), np.uint8))
    np.savez(images / "number.npz", images=np.uint8(3))
    np.save(images / "flat.npy", np.zeros((3, 16, 0), np.uint8))
    content = bytearray((images / "a.png").read_bytes())
    content[16:20] = bytes(4)  # the width; then the checksum of the chunk
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (images / "zero.png").write_bytes(content)
    names = ["nope.png", 300 * "x", "empty", "none.npz", "number.npz", "flat.npy", "zero.png"]
    given = [images / name for name in (*names[:3], "a.png", *names[3:])]
    code, out, err = call("predict", made_run, *given, "--format", "json")
    assert code == 1
    assert [row["file"] for row in json.loads(out)] == [str(images / "a.png")]
    lines = err.splitlines()
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"error: {images / name}")
    code, out, err = call("predict", made_run, *(images / name for name in names[3:]), "--format", "csv")
    assert (code, out, err.count("\n")) == (2, "", 4)


def described(run: Path, copy: Path, **known: Any) -> Path:
    """Return a copy of a run that says what its images were, as every run does that was trained."""
    folder = RunFolder(shutil.copytree(run, copy))
    data = folder.read_json("data.json")
    channels, *size = data["image_shape"]
    description = {"channels": channels, "size": size, "classes": data["classes"], "dtype": data["image_type"]}
    folder.write_json("data.json", data | {"input": description | known})
    folder.seal()
    return folder.path


def test_a_file_on_another_scale_is_named_and_the_others_are_answered(
    call: Callable, float_run: Path, tmp_path: Path
) -> None:
    run = described(float_run, tmp_path / "run", value_range=(0.0, 1.0))
    for name, largest in (("a", 1), ("b", 255), ("c", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.linspace(0, largest, 64).reshape(8, 8))
    code, out, err = call("predict", run, tmp_path, "--format", "json")
    assert code == 1
    assert [Path(row["file"]).name for row in json.loads(out)] == ["a.npy", "c.npy"]
    assert err.startswith(f"error: {tmp_path / 'b.npy'}: the network was trained on float32 in 0..1, got values in 0..")
    assert err.count("\n") == 1


def test_a_photo_may_be_as_dark_as_it_likes(call: Callable, made_run: Path, tmp_path: Path) -> None:
    """Alone or among others; numbers of 0 and 1 in an array are more likely on another scale."""
    run = described(made_run, tmp_path / "run", value_range=(0.0, 255.0))
    dark = np.ones((16, 16, 3), np.uint8)
    Image.fromarray(dark).save(tmp_path / "night.png")
    np.save(tmp_path / "night.npy", dark)
    assert call("predict", run, tmp_path / "night.png").code == 0
    assert "they look scaled to 0..1" in call("predict", run, tmp_path / "night.npy").err


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_names_reach_a_terminal_escaped(
    call: Callable, made_run: Path, images: Path, form: str, monkeypatch: Any
) -> None:
    file = images / "\x1b]0;owned\x07\u202e\udcff.png"
    shutil.copy(images / "a.png", file)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    out = call("predict", made_run, file, "--format", form).out
    assert not {"\x1b", "\x07", "\u202e", "\udcff"} & set(out)
    assert form == "table" or "owned" in out  # which may break the lines of a narrow terminal


def test_unknown_strategy(refused: Callable, made_run: Path, images: Path) -> None:
    assert "did you mean 'cnn-dnn'?" in refused("predict", made_run, images, "--strategy", "dnn")


def test_unknown_format(refused: Callable, made_run: Path, images: Path) -> None:
    assert "'table', 'json', 'csv'" in refused("predict", made_run, images, "--format", "xml")


def test_not_a_run(refused: Callable, images: Path, tmp_path: Path) -> None:
    for file in (images, tmp_path / "no.png"):  # what is wrong with the run is said first
        line = refused("predict", tmp_path / "nothing", file)
        assert f"{tmp_path / 'nothing'} does not exist" in line
        assert line.endswith("give the folder of a run")
    assert "it is not a run" in refused("predict", images, images)


def test_a_flipped_byte_is_named(refused: Callable, made_run: Path, images: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made_run, tmp_path / "damaged")
    file = damaged / "locals" / "1.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert f"{file} is damaged" in refused("predict", damaged, images)


def test_code_of_a_stranger(
    call: Callable, refused: Callable, made_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers.py").write_text("from ddcnn.models import VGG9\nprint('hello')\nnetwork = VGG9\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = shutil.copytree(made_run, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("name: vgg9", "name: strangers:network"))
    RunFolder(run).seal()
    line = refused("predict", run, images)
    assert "import the module 'strangers' and call 'network'" in line
    assert line.endswith("say so: trust=True, or --trust")
    code, out, _ = call("predict", run, images, "--trust")
    assert (code, out.startswith("hello")) == (0, True)


def test_an_array_file_is_read_as_in_training_and_by_what_it_says(
    call: Callable, refused: Callable, float_run: Path, tmp_path: Path
) -> None:
    """As the network itself says of these images, and as ``explain`` does; in the file width comes before height."""
    draw = np.random.default_rng(0)
    images = draw.random((3, 1, 8, 8), np.float32)
    turned = images[:, 0].transpose(0, 2, 1)
    plain = described(float_run, tmp_path / "plain", value_range=(0.0, 1.0))
    run = described(float_run, tmp_path / "run", value_range=(0.0, 1.0), layout="NWH")
    with torch.no_grad():
        expected = load(float_run)(torch.from_numpy(images)).softmax(1).numpy()
        assert not np.allclose(
            load(float_run)(torch.from_numpy(turned[:, None].copy())).softmax(1), expected, atol=1e-4
        )
    np.savez(tmp_path / "w.npz", images=turned, layout="NWH")
    np.savez(tmp_path / "h.npz", images=images[:, 0], layout="nhw")
    np.savez(tmp_path / "c.npz", images=images.transpose(0, 3, 1, 2), layout=np.array([b"NWCH"]))
    for name in ("w.npz", "h.npz", "c.npz"):
        for one in (plain, run):
            rows = json.loads(call("predict", one, tmp_path / name, "--format", "json").out)
            np.testing.assert_allclose([[*row["probabilities"].values()] for row in rows], expected, atol=1e-5)
            rows = json.loads(call("explain", one, tmp_path / name, "--json").out)["images"]
            assert [row["probability"] for row in rows] == pytest.approx(expected.max(1).tolist(), abs=1e-5)
    np.save(tmp_path / "one.npy", turned[0])  # it cannot say
    rows = json.loads(call("predict", run, tmp_path / "one.npy", "--format", "json").out)
    assert [*rows[0]["probabilities"].values()] == pytest.approx(expected[0].tolist(), abs=1e-5)
    np.savez(tmp_path / "w.npz", images=turned)
    assert "w.npz does not say which axis is what" in refused("predict", run, tmp_path / "w.npz")
    assert call("predict", plain, tmp_path / "w.npz").code == 0
    for wrong, message in (
        ("NCHW", "has 4 axes"),
        (np.array([1.0]), "layout should be one string"),
        ("HWN", "layout should"),
    ):
        np.savez(tmp_path / "w.npz", images=turned, layout=wrong)
        assert message in refused("predict", run, tmp_path / "w.npz")


def test_an_array_file_that_does_not_fit_by_its_own_layout_is_refused(
    refused: Callable, made_run: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "w.npz", images=PIXELS, layout="NCHW")
    said = refused("predict", made_run, tmp_path / "w.npz")
    assert "expected an array of shape (3, 16, 16) as in training, got (16, 16, 3) of layout NCHW" in said


def test_a_picture_of_a_mask_is_not_one_of_0_and_1(refused: Callable, made_run: Path, tmp_path: Path) -> None:
    run = described(made_run, tmp_path / "run", value_range=(0.0, 1.0))
    Image.fromarray(255 * (PIXELS[0] > 127).astype(np.uint8)).save(tmp_path / "mask.png")
    assert "was trained on uint8 in 0..1, got values in 0..255" in refused("predict", run, tmp_path / "mask.png")

"""`ddcnn data info`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddcnn.data.photos import NOTE


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 4, 6)).astype(np.float32)
    np.savez(tmp_path / "d.npz", images=images, labels=[0, 1] * 10, classes=["cat", "dog"])
    return tmp_path / "d.npz"


def test_json(call: Callable, arrays: Path) -> None:
    code, out, err = call("data", "info", f"npz:{arrays}", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["classes"] == {"cat": 10, "dog": 10}
    assert (facts["samples"], facts["image_shape"], facts["type"]) == (20, [1, 4, 6], "float32")
    assert facts["split"] == {"train": 14, "validation": 2, "test": 4, "official_test": False}
    assert facts["augmentation"] == {"flip_axes": [], "shift": 0, "rotation": 0.0, "plane": [-2, -1], "crop": 1.0}
    assert facts["source"]["publisher"] == "you"


def test_text(call: Callable, arrays: Path) -> None:
    out = call("data", "info", f"npz:{arrays}").out
    for line in (
        "20 images of 2 classes",
        "4x6 pixels, 1 channel\n",
        "14 train, 2 validation, 4 test",
        "  dog       10",
    ):
        assert line in out


def test_what_was_done_and_passed_over_is_said_and_no_name_steers_the_terminal(call: Callable, tmp_path: Path) -> None:
    for name in ("a", "b\x1b[2J\u202e"):
        (tmp_path / name / "@eaDir").mkdir(parents=True)
        for i in range(3):
            Image.new("RGBA" if i else "RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "0.heic").write_bytes(b"")
    code, out, _ = call("data", "info", f"folder:{tmp_path}")
    assert code == 0
    assert "\x1b" not in out
    assert "  b\\x1b[2J\\u202e        3\n" in out
    notes = ["laid on white, because transparent: 4 files", "passed over: 2 .heic, by the suffix"]
    notes += ["passed over: 2 @eaDir, folders of operating systems", NOTE]
    assert [line.removeprefix("note: ") for line in out.splitlines() if line.startswith("note: ")] == notes
    facts = json.loads(call("data", "info", f"folder:{tmp_path}", "--json").out)
    assert (facts["notes"], list(facts["classes"])) == (notes, ["a", "b\x1b[2J\u202e"])


def test_what_check_leaves_out_is_said(call: Callable, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("L", (4, 4), 40 * i + ord(name)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    out = call("data", "check", f"folder:{tmp_path}", "--on-bad-file", "warn").out
    assert f"left out: {tmp_path / 'a' / 'bad.png'} is empty; remove it or replace it" in out
    facts = json.loads(call("data", "check", f"folder:{tmp_path}", "--on-bad-file", "warn", "--json").out)
    assert [Path(one["file"]).name for one in facts["bad_files"]] == ["bad.png"]


def test_folder_is_resized(call: Callable, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for size in (8, 9, 10):
            Image.new("L", (size, size), color=size).save(tmp_path / name / f"{size}.png")
    out = call("data", "info", f"folder:{tmp_path}", "--image-size", "8x6", "--json").out
    assert json.loads(out)["image_shape"] == [1, 8, 6]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "'nope' is unknown"),
        (["folder:nope"], "nope does not exist"),
        (["mnist5k", "--image-size", "0x"], "image_size"),
        ([], "Missing argument 'SOURCE'"),
    ],
)
def test_errors(refused: Callable, arguments: list[str], expected: str) -> None:
    assert expected in refused("data", "info", *arguments)


def test_data_info_counts_groups_and_leakage(call: Callable, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    images = np.zeros((8, 2, 3), np.uint8)
    parts = {"train_images": images, "train_labels": [0, 1] * 4, "test_images": images[:2], "test_labels": [0, 1]}
    np.savez(path, **parts, train_groups=[1, 1, 2, 2, 3, 3, 4, 4], test_groups=[4, 5])
    out = " ".join(call("data", "info", f"npz:{path}").out.split())
    assert "5 of up to 3 images; 1 are in more than one official part: leakage" in out

"""The answer to an upload: what the network says, or why it says nothing; never a traceback."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import ddcnn
from ddcnn.cli.upload import KINDS, MOST_BYTES, Answering
from ddcnn.cli.web import open_answering

pytest.importorskip("captum", reason="pip install 'ddcnn[explain]'")

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
FUZZED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def answering(made_run: Path) -> Answering:
    return open_answering(made_run, None, trust=False)


def test_an_image_is_answered_as_the_network_does(answering: Answering, made_run: Path, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    answer = answering(str(tmp_path / "a.png"))
    images = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]
    network = ddcnn.load(made_run)
    expected = network.predict_proba(images)[0]
    k = answering.classes[int(expected.argmax())]
    assert answer.message == f"{k} ({expected.max():.1%}), decided by cnn-dnn"
    assert list(answer.probabilities) == ["cat", "dog", "[red]x"]
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    with torch.no_grad():
        local = network.local_probabilities(images)[0]
    assert [row[2] for row in answer.votes] == [f"{float(p.max()):.1%}" for p in local]
    assert answer.picture is not None
    assert answer.picture.dtype == np.uint8
    assert min(answer.picture.shape[:2]) > 300


def test_what_was_done_to_an_upload_is_said_of_this_one_only(answering: Answering, tmp_path: Path) -> None:
    def notes(image: Image.Image) -> list[str]:
        image.save(tmp_path / "a.png")
        decision, *more = answering(str(tmp_path / "a.png")).message.split("; ")
        assert decision.endswith("decided by cnn-dnn")
        return more

    whole = Image.fromarray(PIXELS)
    glass = Image.fromarray(np.dstack([PIXELS, np.full((16, 16), 99, np.uint8)]))
    resized, white = "resized to 16x16 (stretch)", "laid on white, because transparent"
    for _ in range(2):
        assert notes(whole.resize((20, 24))) == [resized]
        assert notes(glass) == [white]
        assert notes(whole) == []
    assert notes(glass.resize((20, 24))) == [resized, white]
    assert answering.wanted.note is None


def test_what_is_no_image_of_this_kind_is_told(answering: Answering, tmp_path: Path) -> None:
    def said(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        answer = answering(str(tmp_path / name))
        assert (answer.probabilities, answer.votes, answer.picture) == ({}, [], None)
        assert str(tmp_path) not in answer.message
        assert "\n" not in answer.message
        return answer.message

    assert answering(None).message == "Drop an image above."
    assert answering(str(tmp_path / "gone.png")).message.startswith("gone.png cannot be read: No such file")
    assert said("a.txt", b"hello").startswith("a.txt is no image (.bmp")
    assert "a.png" in said("a.png", b"\x89PNG and no more")
    assert said("big.png", bytes(MOST_BYTES + 1)) == "big.png has 20.000001 MiB; 20 MiB are the most, give less"
    assert "expected an array of shape (3, 16, 16)" in said("a.npy", array_file(np.zeros((4, 4))))
    assert "expected integers in 0..255" in said("b.npy", array_file(np.full((3, 16, 16), np.nan)))
    assert "a.npz is no image" in said("a.npz", b"PK")
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "png")  # 900 megapixels in 110 kB
    assert "bomb.png" in said("bomb.png", bomb.getvalue())


def array_file(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def image_file(kind: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind)
    return file.getvalue()


WHOLE = [image_file(kind, "RGB") for kind in ("png", "jpeg", "bmp", "webp", "tiff", "gif")]
WHOLE += [image_file("png", mode) for mode in ("1", "L", "P", "RGBA", "I;16")]
WHOLE += [array_file(PIXELS), array_file(PIXELS.astype(np.float64))]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, or cut off."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 8))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


SHAPES = st.lists(st.integers(0, 20), max_size=5) | st.sampled_from([[3, 16, 16], [16, 16, 3], [1, 3, 16, 16]])
TYPES = st.sampled_from(["u1", "i8", "f4", "f8", "c8", "?", "S3", "U2", "M8[s]", "O"])


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    shape, kind = draw(SHAPES), draw(TYPES)
    if kind == "O":
        file = io.BytesIO()
        np.save(file, np.full(shape, None), allow_pickle=True)
        return file.getvalue()
    array = np.zeros(shape, kind)
    if kind[0] in "fc":
        array += draw(st.sampled_from([0, 1, -1, 300, np.nan, np.inf]))
    return array_file(array)


@FUZZED
@given(content=damaged() | arrays() | st.binary(max_size=200), kind=st.sampled_from([*KINDS, ".npz", ".txt", ""]))
def test_any_file_is_answered(answering: Answering, tmp_path: Path, content: bytes, kind: str) -> None:
    file = tmp_path / f"upload{kind}"
    file.write_bytes(content)
    answer = answering(str(file))
    assert answer.message
    assert answer.message.isprintable()
    if answer.probabilities:
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert answer.picture is not None
    else:
        assert str(tmp_path) not in answer.message

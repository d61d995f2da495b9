"""The gallery: what stands on a picture and under it, and files that are refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from ddcnn.errors import RunError
from ddcnn.report.mistakes import gallery
from ddcnn.report.read import read_run
from ddcnn.report.results import Results


def test_a_card(synthetic: Any) -> None:
    results = Results.parse(synthetic.comparison(grid=(1, 2), size=(20, 40)))
    images = synthetic.images_of((20, 40))
    cards = gallery(results, synthetic.mistakes_of(images, 2, 10))
    assert [(card.true, card.decided, card.probability, card.sample) for card in cards[:2]] == [
        ("0", "1", "100.0", 100), ("1", "2", "99.0", 101),
    ]  # fmt: skip
    assert cards[0].summary == "1 of 2 subdomains says 0, 1 says 1"
    assert [(vote.x, vote.width, vote.height, vote.word, vote.kind) for vote in cards[0].votes] == [
        (0, 84, 84, "0", "right"), (84, 84, 84, "1", "same"),
    ]  # fmt: skip
    shown = Image.open(io.BytesIO(base64.b64decode(cards[1].picture.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(shown)[..., 0], images[1, 0])


def test_of_a_volume_the_subdomains_of_the_slice(synthetic: Any) -> None:
    results = synthetic.comparison(grid=(2, 1, 2), size=(8, 10, 12))
    results["details"]["plane"] = [0, 2]  # rows run along the first axis, so slices lie along the second
    mistakes = synthetic.mistakes_of(synthetic.images_of((8, 12)), 4, 10) | {"slices": np.full(3, 7)}
    assert len(gallery(Results.parse(results), mistakes)[0].votes) == 4
    results["details"]["plane"] = [1, 2]
    votes = gallery(Results.parse(results), mistakes)[0].votes
    assert [vote.word for vote in votes] == ["2", "3"]


def test_a_missing_local_cnn_says_nothing(synthetic: Any) -> None:
    mistakes = synthetic.mistakes_of(synthetic.images_of((28, 28)), 4, 10)
    mistakes["votes"][0] = [-1, 3, 3, 3]
    card = gallery(Results.parse(synthetic.comparison()), mistakes)[0]
    assert card.summary == "3 of 3 subdomains say 3"
    assert [(vote.word, vote.kind) for vote in card.votes] == [("3", "other")] * 3


@pytest.mark.parametrize(
    "edit",
    [
        {"image_shape": []},
        {"image_shape": [1, 0, 28]},
        {"image_shape": [1, 4, 28, 28]},
        {"image_shape": [1, 10**30, 28]},
    ],
)
def test_places_that_are_none(synthetic: Any, edit: dict[str, Any]) -> None:
    results = synthetic.comparison()
    results["details"] |= edit
    cards = gallery(Results.parse(results), synthetic.mistakes_of(synthetic.images_of((28, 28)), 4, 10))
    assert all(0 <= vote.y <= vote.y + vote.height <= 168 for card in cards for vote in card.votes)


def test_subdomains_that_lie_in_the_same_place_are_only_counted(synthetic: Any) -> None:
    results = synthetic.comparison()
    results["subdomains"][1]["box"] = results["subdomains"][0]["box"]
    card = gallery(Results.parse(results), synthetic.mistakes_of(synthetic.images_of((28, 28)), 4, 10))[0]
    assert card.votes == ()
    assert card.summary


REFUSED = {
    "no images": ({"images": np.zeros((3, 8, 8), np.uint8)}, r"1 to 24 images .* got uint8 \(3, 8, 8\)"),
    "none at all": ({"images": np.zeros((0, 1, 8, 8), np.uint8)}, r"1 to 24 images"),
    "other votes": ({"votes": np.zeros((3, 5), np.int64)}, r"votes of shape \(3, 4\), got int64 \(3, 5\)"),
    "classes that are no integers": ({"labels": np.full(3, 1e300)}, r"labels of shape \(3,\), got float64 \(3,\)"),
    "no probabilities": ({"probabilities": None}, r"probabilities of shape \(3,\)"),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_does_not_fit_is_named(make_run: Callable[..., Path], edit: dict, message: str) -> None:
    folder = make_run()
    path = folder / "mistakes.safetensors"
    tensors = {name: value for name, value in (load_file(path) | edit).items() if value is not None}
    save_file(tensors, path)
    with pytest.raises(RunError, match=rf"mistakes\.safetensors should hold {message}"):
        read_run(folder)


def test_numbers_that_are_none_are_drawn(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / "mistakes.safetensors"
    images = np.full((3, 1, 9, 9), np.nan, np.float32)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = np.inf, 3e38
    save_file(load_file(path) | {"images": images, "probabilities": np.array([np.nan, np.inf, -1], np.float32)}, path)
    run = read_run(folder)
    assert [card.probability for card in gallery(run.results, run.mistakes)] == ["0.0", "0.0", "0.0"]

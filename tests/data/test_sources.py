from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, open_data, register_source
from ddcnn.data.sources import SOURCES
from ddcnn.errors import DataError


def _stripes(config: DataConfig) -> Dataset:
    return Dataset(config.source, torch.ones(2, 1, 3, 4), torch.tensor([0, 1]), ("a", "b"))


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stripes", "stripes:PATH"):
        monkeypatch.setitem(SOURCES, name, _stripes)  # removed again after the test
        monkeypatch.delitem(SOURCES, name)


def test_a_registered_source_is_opened() -> None:
    assert register_source("stripes")(_stripes) is _stripes
    assert open_data(DataConfig(source="stripes")).name == "stripes"


def test_a_registered_source_may_take_a_path() -> None:
    register_source("stripes:PATH")(_stripes)
    assert open_data(DataConfig(source="stripes:a:b")).name == "stripes:a:b"
    with pytest.raises(DataError, match=r"data\.source = 'stripes' needs a path: stripes:PATH"):
        open_data(DataConfig(source="stripes"))


def test_every_source_passes_the_door() -> None:
    @register_source("stripes")
    def _bad(config: DataConfig) -> Dataset:
        return Dataset(config.source, torch.full((2, 1, 3, 4), torch.nan), torch.tensor([0, 1]), ("a", "b"))

    with pytest.raises(DataError, match="stripes: image 0 holds NaN or infinity"):
        open_data(DataConfig(source="stripes"))


@pytest.mark.parametrize("name", ["", ":PATH", "a:b"])
def test_the_form_of_a_name_is_checked(name: str) -> None:
    with pytest.raises(DataError, match="should be a word or word:PATH"):
        register_source(name)


@pytest.mark.parametrize("name", ["mnist5k", "folder", "mnist5k:PATH"])
def test_a_taken_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="there is already a source"):
        register_source(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar", r"'cifar' is unknown: did you mean 'cifar10'\? \(one of: cifar10, csv:PATH, folder:PATH, "),
        ("folder", "'folder' needs a path: folder:PATH"),
        ("npz:", "'npz:' needs a path: npz:PATH"),
        ("cifar10:x", "'cifar10:x': cifar10 takes no path, use 'cifar10'"),
        ("", "'' is unknown"),
        ("zarr:x", "x does not exist"),
        ("ark:x", "'ark:x' is unknown"),
    ],
)
def test_a_wrong_source_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(source=source))


def test_a_bare_path_is_told_its_prefix(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, images=np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match=f"is a path; say what it is: folder:{tmp_path}"):
        open_data(DataConfig(source=str(tmp_path)))
    with pytest.raises(DataError, match=f"is a path; say what it is: npz:{file}"):
        open_data(DataConfig(source=str(file)))


def test_a_size_that_cannot_be_had_is_refused() -> None:
    register_source("stripes")(_stripes)
    assert open_data(DataConfig(source="stripes", image_size=(3, 4))).image_size == (3, 4)
    for size in [(4, 3), (3,), (1, 3, 4)]:
        with pytest.raises(
            DataError, match=r"stripes has images of 3x4, which are not resized; leave data\.image_size"
        ):
            open_data(DataConfig(source="stripes", image_size=size))

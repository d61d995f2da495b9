"""Small networks and data in the place of large ones, so that pages can be run as they stand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddcnn
from ddcnn.config import DataConfig
from ddcnn.data.phantom import read_phantom
from ddcnn.data.sources import SOURCES
from ddcnn.engines.in_process import InProcess
from ddcnn.engines.registry import ENGINES
from ddcnn.models.registry import MODELS
from ddcnn.recipes import RECIPES
from tests.strategies.tiny import tiny

QUICK = {
    "training": {"epochs": 1, "batch_size": 32, "lr": 0.02, "optimizer": "sgd"},
    "aggregation": {"epochs": 1, "hidden": (8,)},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}


@pytest.fixture(scope="module")
def small_things() -> Iterator[None]:
    """Let names of networks, data sets, engines and recipes stand for small ones of the same kind."""
    with pytest.MonkeyPatch.context() as patch:
        for registry, entries in (
            (MODELS, dict.fromkeys(("vgg9", "resnet20", "cnn3d"), tiny)),
            (ENGINES, dict.fromkeys(("processes", "ray"), lambda _compute, _device: InProcess())),
        ):
            for name, entry in entries.items():
                patch.setitem(registry._entries, name, entry)
        patch.setitem(SOURCES, "mnist5k", lambda config: _random(config, 1, 12))
        patch.setitem(SOURCES, "cifar10", lambda config: _random(config, 3, 16))
        patch.setitem(SOURCES, "phantom:OPTIONS", _phantom)
        patch.setitem(RECIPES, "fast", lambda: QUICK)
        yield


@pytest.fixture(scope="module")
def prepared(small_things: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages speak of: photos, scans, a run, a store."""
    folder = tmp_path_factory.mktemp("prepared")
    for kind, count in (("brick", 10), ("grass", 10), ("water", 10)):
        (folder / "photos" / kind).mkdir(parents=True)
        for number, pixels in enumerate(_pixels(count, 3, 16)):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "photos" / kind / f"{number:03}.png")
    shutil.copytree(folder / "photos", folder / "more")
    (folder / "new").mkdir()
    Image.fromarray(_pixels(1, 3, 16)[0].transpose(1, 2, 0)).save(folder / "new" / "cat.jpg")
    _write_scans(folder)
    config = ddcnn.Config(data={"source": f"folder:{folder / 'photos'}"}, out=folder / "runs" / "mine")
    ddcnn.compare(config)
    return folder


def _write_scans(folder: Path) -> None:
    try:
        import nibabel
    except ImportError:  # the page on volumes is skipped
        return
    (folder / "scans").mkdir()
    rows = ["file,label,group"]
    for number in range(20):
        values = np.random.default_rng(number).integers(-1000, 400, (12, 12, 12)).astype(np.int16)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / "scans" / f"{number}.nii.gz")
        rows.append(f"scans/{number}.nii.gz,{('healthy', 'ill')[number % 2]},patient{number}")
    (folder / "scans.csv").write_text("\n".join(rows))


def _pixels(count: int, channels: int, size: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def _random(config: DataConfig, channels: int, size: int) -> ddcnn.Dataset:
    images = torch.from_numpy(_pixels(100, channels, size))
    return ddcnn.Dataset(config.source, images, torch.arange(100) % 10, tuple("0123456789"))


def _phantom(config: DataConfig) -> ddcnn.Dataset:
    small = read_phantom(config.model_copy(update={"source": "phantom:size=16x16x16,n=20"}))
    return replace(small, name=config.source)

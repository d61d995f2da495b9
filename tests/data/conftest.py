"""Small image files made on the fly, and the data sets that may lie beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache folder of its own: none may touch the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DDCNN_DATA", str(folder))
    return folder


@pytest.fixture
def save_image() -> Callable[..., np.ndarray]:
    """Return a function that writes a random image and returns its pixels, (H, W) or (H, W, bands)."""

    def save(path: Path, *, size: tuple[int, int] = (6, 9), mode: str = "RGB", seed: int = 0) -> np.ndarray:
        bands = len(mode)
        shape = size if bands == 1 else (*size, bands)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.frombytes(mode, (size[1], size[0]), pixels.tobytes()).save(path)
        return pixels

    return save


@pytest.fixture
def shared() -> Path:
    """Return the folder with data sets for development; skip without it."""
    folder = Path(os.environ.get("DDCNN_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set DDCNN_SHARED to their folder")
    return folder

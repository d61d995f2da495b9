"""Small images of three classes, told apart by the rows of a bright bar, in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_bars(folder: Path, size: tuple[int, int]) -> str:
    """Write 90 images of at least 7 rows, and return the source that reads them."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 90, (90, *size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 3] += 100
    np.savez(folder / "d.npz", images=images, labels=labels)
    return f"npz:{folder / 'd.npz'}"

"""NIfTI files for tests."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

AFFINES = {
    "LAS": np.diag([-1.0, 1.0, 2.0, 1.0]),
    "RPI": np.diag([1.0, -1.0, -3.0, 1.0]),
    "SLA": np.array([[0, -1.0, 0, 5], [0, 0, 1.0, 3], [2.0, 0, 0, 1], [0, 0, 0, 1]]),
}


def save_nifti(path: Path, values: np.ndarray, *, axes: str = "LAS", kind: type = nibabel.Nifti1Image) -> None:
    """Write (a, b, c) voxels whose axes run as ``axes`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind(values, AFFINES[axes]).to_filename(path)


def scan(seed: int = 0, size: tuple[int, ...] = (6, 7, 5)) -> np.ndarray:
    """Return int16 voxels in about the range of CT."""
    return np.random.default_rng(seed).integers(-1000, 400, size).astype(np.int16)

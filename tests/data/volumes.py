"""NIfTI files and DICOM series for tests."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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


def save_dicom(
    folder: Path, values: np.ndarray, *, axes: str = "LAS", syntax: str = ExplicitVRLittleEndian, **changes: object
) -> list[Path]:
    """Write (a, b, c) int16 voxels, whose axes run as ``axes`` says, as c slices; the files are in another order."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = AFFINES[axes].copy()
    affine[:2] *= -1  # DICOM counts to the left and to the back
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    down, across, _ = (affine[:3, :3] / spacing).T
    series, files = generate_uid(entropy_srcs=["series"]), []
    for k in range(values.shape[2]):
        one = pydicom.Dataset()
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["slice", str(k)])
        one.SeriesInstanceUID, one.Modality = series, "CT"
        one.Rows, one.Columns = values.shape[:2]
        one.ImageOrientationPatient = [*across.tolist(), *down.tolist()]
        one.ImagePositionPatient = (affine @ [0, 0, k, 1])[:3].tolist()
        one.PixelSpacing = spacing[:2].tolist()
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 2.0, -1024.0
        one.PixelData = np.ascontiguousarray(values[:, :, k]).astype("<i2").tobytes()
        for name, value in changes.items():
            setattr(one, name, value)
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = syntax
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        files.append(folder / f"{(k * 7) % 97:03}.dcm")
        pydicom.dcmwrite(files[-1], one, enforce_file_format=True)
    return files

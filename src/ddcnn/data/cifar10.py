"""CIFAR-10 in its official binary version: 50,000 + 10,000 colour photographs of 32 x 32 pixels, 10 classes.

Each file holds 10,000 records of 3,073 bytes: the label, then the red, green and blue planes, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddcnn.config import DataConfig
from ddcnn.data.dataset import Dataset
from ddcnn.data.download import Archive, find_or_fetch
from ddcnn.data.files import digest
from ddcnn.errors import DataError

ARCHIVE = Archive(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
)
MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORDS, _RECORD = 10_000, 1 + 3 * 32 * 32


def read_cifar10(config: DataConfig) -> Dataset:
    """Read CIFAR-10, (60000, 3, 32, 32) uint8; the last 10,000 are the official test set.

    It is looked for in ``data.directory``, then in the cache folder (``$DDCNN_DATA`` or ``~/.cache/ddcnn``); if it is
    in neither and ``data.offline`` is not set, it is downloaded (170 MB).

    Raises
    ------
    DataError
        Absent and offline, the download fails, or a file is damaged.
    """
    folder = find_or_fetch(ARCHIVE, config, contains="data_batch_1.bin")
    images = np.empty((_RECORDS * len(MD5), 3, 32, 32), np.uint8)
    labels = np.empty(_RECORDS * len(MD5), np.int64)
    for i, (name, md5) in enumerate(MD5.items()):
        part = slice(i * _RECORDS, (i + 1) * _RECORDS)
        labels[part], images[part] = _read_batch(folder / name, md5)
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=CLASSES,
        official_test=torch.arange(_RECORDS * (len(MD5) - 1), _RECORDS * len(MD5)),
        flip_axes=(1,),
        shift=2,
        source={
            "publisher": "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
            "url": ARCHIVE.url,
            "files": ", ".join(f"{name} (md5 {md5})" for name, md5 in MD5.items()),
            "licence": "none stated",
        },
    )


def _read_batch(path: Path, md5: str) -> tuple[np.ndarray, np.ndarray]:
    again = f"remove {path.parent} to download it again, or restore the official file"
    if not path.is_file():
        raise DataError(f"{path} is missing; {again}")
    size = path.stat().st_size
    if size != _RECORDS * _RECORD:
        raise DataError(f"{path} should hold {_RECORDS * _RECORD} bytes, got {size}; {again}")
    records = np.fromfile(path, np.uint8).reshape(_RECORDS, _RECORD)
    labels = records[:, 0]
    if labels.max() >= len(CLASSES):
        raise DataError(f"{path} should hold labels in 0..9, got {labels.max()}; {again}")
    found = digest(path)
    if found != md5:
        raise DataError(f"{path} is damaged: its MD5 should be {md5}, got {found}; {again}")
    return labels, records[:, 1:].reshape(-1, 3, 32, 32)

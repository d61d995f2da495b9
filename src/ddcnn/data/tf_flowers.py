"""TF-Flowers: 3,670 photographs of five kinds of flowers, as the TensorFlow team collected them from Flickr.

The published set has two photographs twice under one class, and one in two classes. They are dropped, because a copy
can end up in training and test at once: of copies in one class the first is kept, of copies in two classes none.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import PIL
import torch

from ddcnn.config import DataConfig
from ddcnn.data.cached import Arrays, cached, key_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.download import Archive, find_or_fetch
from ddcnn.data.files import digest, image_size
from ddcnn.data.images import read_images
from ddcnn.data.photos import augmentation_of
from ddcnn.errors import DataError

ARCHIVE = Archive(
    name="tf_flowers",
    url="http://download.tensorflow.org/example_images/flower_photos.tgz",
    md5="6f87fb78e9cc9ab41eff2015b380011d",
    folder="flower_photos",
)
PHOTOS = {"daisy": 633, "dandelion": 898, "roses": 641, "sunflowers": 699, "tulips": 799}
_SIZE = (180, 180)


def read_tf_flowers(config: DataConfig) -> Dataset:
    """Read the photographs, (3666, 3, 180, 180) uint8, resized without regard to their aspect ratio.

    They are looked for in ``data.directory`` and the cache folder, else downloaded (230 MB). Resized photographs are
    kept in the cache folder, so the next call takes a second. ``data.image_size`` chooses another size.

    Raises
    ------
    DataError
        Absent and offline, the download fails, photographs are missing or cannot be read.
    """
    size = image_size(config) or _SIZE
    folder = find_or_fetch(ARCHIVE, config, contains="daisy")
    paths = _photos(folder)
    images, labels, dropped = _prepared(paths, size)
    return Dataset(
        name=config.source,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=tuple(PHOTOS),
        **augmentation_of(images.shape),
        resized=True,
        source={
            "publisher": "The TensorFlow Team, Flowers, 2019",
            "url": ARCHIVE.url,
            "files": f"{len(paths)} photographs in {folder.resolve()}, resized to {size[0]}x{size[1]}",
            "dropped": f"exact copies, the first kept within a class, none across classes: {', '.join(dropped)}",
            "licence": "CC BY 2.0; the photographers are named in LICENSE.txt of the archive",
        },
    )


def _photos(folder: Path) -> list[Path]:
    paths = []
    for name, count in PHOTOS.items():
        found = sorted((folder / name).glob("[!.]*.jpg"))
        if len(found) != count:
            raise DataError(
                f"{folder / name} should hold {count} photographs, got {len(found)}; remove {folder} to download it "
                "again, or use your own selection as data.source = folder:PATH"
            )
        paths += found
    return paths


def _prepared(paths: list[Path], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, labels and the names of dropped copies: kept if the photographs are the same."""

    def make() -> Arrays:
        left, dropped = _without_copies(paths)
        labels = np.array([list(PHOTOS).index(path.parent.name) for path in left], dtype=np.int64)
        names = [f"{path.parent.name}/{path.name}" for path in dropped]
        return {"images": read_images(left, size)[0], "labels": labels, "dropped": np.array(names, dtype=str)}

    def fits(arrays: Arrays) -> bool:
        images, labels = arrays["images"], arrays["labels"]
        shape = (len(labels), 3, *size)
        return images.dtype == np.uint8 and images.shape == shape and labels.dtype == np.int64 and "dropped" in arrays

    key = key_of([(f"{path.parent.name}/{path.name}", path) for path in paths], PIL.__version__)
    name = f"{ARCHIVE.name}/{size[0]}x{size[1]}-{key}.npz"
    arrays = cached(name, "the resized photographs", fits, make)
    return arrays["images"], arrays["labels"], arrays["dropped"].tolist()


def _without_copies(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    copies = defaultdict(list)
    for path in paths:
        copies[digest(path, "sha256")].append(path)
    dropped: set[Path] = set()
    for same in copies.values():
        one_class = len({path.parent.name for path in same}) == 1
        dropped.update(same[1:] if one_class else same)
    return [path for path in paths if path not in dropped], sorted(dropped)

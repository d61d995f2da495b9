"""The registry of data sources: what `data.source` may be.

A source is a function from the data configuration to a `Dataset`. To add your own::

    @register_source("moons")
    def read_moons(config: DataConfig) -> Dataset: ...

or, with a path, ``@register_source("csv:PATH")``, whose reader calls `ddcnn.data.files.source_path` for the path.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ddcnn.config import DataConfig
from ddcnn.data.cifar10 import read_cifar10
from ddcnn.data.dataset import Dataset, checked
from ddcnn.data.folder import read_folder
from ddcnn.data.mnist5k import read_mnist5k
from ddcnn.data.npz import read_npz
from ddcnn.data.tf_flowers import read_tf_flowers
from ddcnn.errors import DataError, nearest

Reader = Callable[[DataConfig], Dataset]

SOURCES: dict[str, Reader] = {
    "mnist5k": read_mnist5k,
    "cifar10": read_cifar10,
    "tf_flowers": read_tf_flowers,
    "folder:PATH": read_folder,
    "npz:PATH": read_npz,
}


def open_data(config: DataConfig) -> Dataset:
    """Read the data set that ``config.source`` names; nothing is split off or left out.

    Raises
    ------
    DataError
        The source is unknown, or its images or labels cannot be used.
    """
    dataset = checked(SOURCES[_key(config.source)](config))
    size = config.image_size
    if size is not None and dataset.image_size not in (size, size * len(dataset.image_size)):
        raise DataError(
            f"{config.source} has images of {'x'.join(map(str, dataset.image_size))}, which are not resized; leave "
            f"data.image_size = {'x'.join(map(str, size))} out"
        )
    return dataset


def register_source(name: str) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a reader available as ``data.source``.

    Parameters
    ----------
    name
        A new word, or a word and ``:PATH``.

    Raises
    ------
    DataError
        The name is taken, or is not of this form.
    """
    word, colon, path = name.partition(":")
    if not word or (colon and path != "PATH"):
        raise DataError(f"the name of a source should be a word or word:PATH, got {name!r}")
    if word in {key.partition(":")[0] for key in SOURCES}:
        raise DataError(f"there is already a source {word!r}; choose another name")

    def register(reader: Reader) -> Reader:
        SOURCES[name] = reader
        return reader

    return register


def _key(source: str) -> str:
    word, colon, path = source.partition(":")
    key = f"{word}:PATH" if colon else word
    if key in SOURCES and (path or not colon):
        return key
    if f"{word}:PATH" in SOURCES:
        raise DataError(f"data.source = {source!r} needs a path: {word}:PATH")
    if word in SOURCES:
        raise DataError(f"data.source = {source!r}: {word} takes no path, use {word!r}")
    if source and Path(source).expanduser().exists():
        kind = "folder" if Path(source).expanduser().is_dir() else "npz"
        raise DataError(f"data.source = {source!r} is a path; say what it is: {kind}:{source}")
    raise DataError(f"data.source = {source!r} is unknown: {nearest(source, SOURCES)}")

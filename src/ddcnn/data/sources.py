"""The registry of data sources: what `data.source` may be.

A source is a function from the data configuration to a `Dataset`. To add your own::

    @register_source("moons")
    def read_moons(config: DataConfig) -> Dataset: ...

or name a function of your own module as ``data.source``, ``module:function``; or, with a path,
``@register_source("hdf5:PATH")``, whose reader calls `ddcnn.data.files.source_path` for the path;
``name:OPTIONS`` is for what is no path. A reader that passes on `bad_files` heeds ``data.on_bad_file``.
If the images may be more than fits into memory, the reader returns them as `ddcnn.data.lazy.Lazy`, a function from the
number of a sample to its image: ``ddcnn data prepare`` then holds a few of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddcnn.config import DataConfig
from ddcnn.data.arrays import ARRAYS, refuse_to_read
from ddcnn.data.cifar10 import read_cifar10
from ddcnn.data.csv_file import read_csv
from ddcnn.data.dataset import Dataset, checked
from ddcnn.data.folder import read_folder
from ddcnn.data.image_memory import Room, given, room
from ddcnn.data.lazy import Lazy, load
from ddcnn.data.medmnist3d import read_medmnist3d
from ddcnn.data.mnist5k import read_mnist5k
from ddcnn.data.mosmed import read_mosmed
from ddcnn.data.npz import read_npz
from ddcnn.data.phantom import read_phantom
from ddcnn.data.store.read import read_zarr
from ddcnn.data.tf_flowers import read_tf_flowers
from ddcnn.errors import DataError, nearest
from ddcnn.registry import import_by_name, is_module

_ENDINGS = ("PATH", "OPTIONS")

Reader = Callable[[DataConfig], Dataset]

SOURCES: dict[str, Reader] = {
    "mnist5k": read_mnist5k,
    "cifar10": read_cifar10,
    "tf_flowers": read_tf_flowers,
    "folder:PATH": read_folder,
    "npz:PATH": read_npz,
    "csv:PATH": read_csv,
    "medmnist3d:PATH": read_medmnist3d,
    "mosmed": read_mosmed,
    "phantom": read_phantom,
    "phantom:OPTIONS": read_phantom,
    "zarr:PATH": read_zarr,
    ARRAYS: refuse_to_read,
}
_USERS = {
    "classes": ("csv:PATH", "mosmed"),
    "window": ("csv:PATH", "mosmed", ARRAYS),
    "resize": ("folder:PATH", "csv:PATH", ARRAYS),
    "group_pattern": ("folder:PATH",),
}
_RESIZING = ("folder:PATH", "csv:PATH", "tf_flowers", "mosmed", ARRAYS)


def open_data(config: DataConfig, *, memory: int | None = None, limit: int | None = None) -> Dataset:
    """Read the data set that ``config.source`` names; nothing is split off or left out.

    Its images are in memory, or, from ``zarr:PATH``, in a store.

    Parameters
    ----------
    memory
        Bytes that the images may take. Readers of files hold it while reading, too; what a source of your own takes is
        known only afterwards.
    limit
        Bytes that everything together may take, for the message.

    Raises
    ------
    DataError
        The source is unknown, its images or labels cannot be used, or they take more memory.
    """
    with given(Room(memory, limit)):
        dataset = _open(config)
        if isinstance(dataset.images, Lazy):
            room().require(config.source, dataset.images.shape, dataset.images.dtype.itemsize)
            return checked(replace(dataset, images=load(dataset.images)))
    return dataset


def open_lazily(config: DataConfig, *, memory: int | None = None) -> Dataset:
    """Do as `open_data`, but leave images that are read or made one at a time where they are.

    So are those of files that take more than half of ``memory``, or 1 GiB, if they can be read one by one.
    """
    with given(Room(memory, lazily=True)):
        return _open(config)


def _open(config: DataConfig) -> Dataset:
    foreign = is_foreign(config.source)
    if config.resize is not None and config.image_size is None:
        raise DataError(f"data.resize = {config.resize} needs a size; give data.image_size as well")
    reader = import_by_name(config.source, "data source", DataError) if foreign else SOURCES[_key(config.source)]
    key = config.source if foreign else _key(config.source)
    for field, users in _USERS.items():
        if getattr(config, field) is not None and key in SOURCES and key not in users:
            named = " and ".join(user for user in users if user != ARRAYS)  # no source to choose
            raise DataError(f"data.{field} is for {named}; leave it out for {config.source}")
    if not callable(reader):
        raise DataError(f"data source {config.source!r} is a {type(reader).__name__}, not a function")
    found = reader(config)
    if not isinstance(found, Dataset):
        raise DataError(f"data source {config.source!r} returned a {type(found).__name__}, not a ddcnn.Dataset")
    dataset = checked(found)
    size = config.image_size
    if size is not None and dataset.image_size not in (size, size * len(dataset.image_size)):
        raise DataError(
            f"{config.source} has images of {'x'.join(map(str, dataset.image_size))}, which are not resized; leave "
            f"data.image_size = {'x'.join(map(str, size))} out"
        )
    return dataset if size is None else replace(dataset, resized=True, resize=config.resize)


def takes(source: str, field: str) -> bool:
    """Return whether a source heeds ``window``, ``classes``, ``image_size`` or ``resize`` of `DataConfig`.

    >>> takes("csv:scans.csv", "window"), takes("npz:scans.npz", "window")
    (True, False)
    """
    return not is_foreign(source) and _key(source) in (_USERS | {"image_size": _RESIZING})[field]


def register_source(name: str) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a reader available as ``data.source``.

    Parameters
    ----------
    name
        A new word, or a word and ``:PATH`` or ``:OPTIONS``.

    Raises
    ------
    DataError
        The name is taken, or is not of this form.
    """
    word, colon, path = name.partition(":")
    if not word or (colon and path not in _ENDINGS):
        raise DataError(f"the name of a source should be a word or word:PATH, got {name!r}")
    if word in {key.partition(":")[0] for key in SOURCES}:
        raise DataError(f"there is already a source {word!r}; choose another name")

    def register(reader: Reader) -> Reader:
        SOURCES[name] = reader
        return reader

    return register


def is_foreign(source: str) -> bool:
    """Tell whether a source is a function of the user's own, ``module:function``, which would be imported.

    >>> is_foreign("ddcnn.data.mnist5k:read_mnist5k"), is_foreign("folder:photos"), is_foreign("cifar10")
    (True, False, False)
    """
    return _may_be_foreign(source) and is_module(source.partition(":")[0])


def _may_be_foreign(source: str) -> bool:
    module, colon, function = source.partition(":")
    known = {key.partition(":")[0] for key in SOURCES}
    names = [*module.split("."), function]
    return bool(colon) and module not in known and all(name.isidentifier() for name in names)


def _key(source: str) -> str:
    word, colon, path = source.partition(":")
    keys = [f"{word}:{ending}" for ending in _ENDINGS] if colon else [word]
    for key in keys:
        if key in SOURCES and (path or not colon):
            return key
    if f"{word}:PATH" in SOURCES:
        raise DataError(f"data.source = {source!r} needs a path: {word}:PATH")
    if word in SOURCES:
        raise DataError(f"data.source = {source!r}: {word} takes no path, use {word!r}")
    if source and Path(source).expanduser().exists():
        kind = "npz"
        if Path(source).expanduser().is_dir():
            kind = "zarr" if (Path(source).expanduser() / "zarr.json").is_file() else "folder"
        raise DataError(f"data.source = {source!r} is a path; say what it is: {kind}:{source}")
    readable = [name for name in SOURCES if name != ARRAYS]
    own = "or give module:function"
    if _may_be_foreign(source):
        own = f"and no module {word.partition('.')[0]!r} is installed, or in this folder"
    raise DataError(f"data.source = {source!r} is unknown: {nearest(source, readable)}; {own}")

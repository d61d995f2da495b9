"""Images that are given to a run, instead of being read by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddcnn.config import Config, DataConfig
from ddcnn.data import Dataset
from ddcnn.data.arrays import ARRAYS, as_dataset, as_numpy
from ddcnn.data.description import InputDescription
from ddcnn.errors import ConfigError, DataError
from ddcnn.runs.folder import RunFolder

Given = Any
"""A `Dataset`, a pair (X, y), a table of files and labels, or nothing."""

_FOR_FILES = ("window", "classes", "image_size", "resize", "group_pattern")


def as_config(config: Any) -> Config:
    """Return a configuration that is one, or is given as nested sections.

    Raises
    ------
    ConfigError
        It is something else, or a field cannot be used.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return Config.parse(config)
    raise ConfigError(
        "config should be a ddcnn.Config or nested sections, such as {'training': {'epochs': 3}}, got "
        f"{type(config).__name__}; a file is read by ddcnn.Config.read"
    )


def taken(config: Config, data: Given, known: InputDescription | None = None) -> tuple[Config, Dataset | None]:
    """Return the configuration of a run on images that are given, and these as a data set.

    Parameters
    ----------
    known
        What the run says of its images already, if it has begun.

    Raises
    ------
    DataError
        They cannot be used, or the configuration asks for what is done to files only.
    """
    if data is None:
        return config, None
    dataset = as_given(data, config.data, known=known)
    if isinstance(data, tuple | list):
        refuse_for_files(config.data)
    if dataset.name == config.data.source:
        return config, dataset
    source = config.data.model_copy(update={"source": ARRAYS})
    return config.model_copy(update={"data": source}), dataset


def refuse_for_files(config: DataConfig) -> None:
    """Raise a `DataError` if something is asked for that is done to files, and images are given in memory."""
    asked = [name for name in _FOR_FILES if getattr(config, name) is not None]
    if asked:
        raise DataError(f"data.{asked[0]} is for files, and these images are given in memory; leave it out")


def described(folder: RunFolder) -> InputDescription | None:
    """Return what a run that has begun, or its first fold, says of its images; None: nothing yet."""
    for one in (folder, RunFolder(folder.path / "folds" / "0")):
        if one.has("data.json") and "input" in (data := one.read_json("data.json")):
            return InputDescription.from_json(data["input"])
    return None


def as_given(
    data: Given, config: DataConfig, classes: Sequence[str] | None = None, known: InputDescription | None = None
) -> Dataset:
    """Return what was given as a data set.

    Parameters
    ----------
    classes
        The names, where they are known.
    known
        What is known of the images of a training: a pair (X, y) has their layout, if its shape fits.
    """
    if isinstance(data, tuple | list):
        if len(data) not in (2, 3):
            raise DataError(f"data should be (X, y) or (X, y, groups), got {len(data)} parts; see ddcnn.as_dataset")
        groups = data[2] if len(data) == 3 else None
        X, layout = data[0], None
        if known is not None and known.layout is not None:
            X = as_numpy(X, "X")
            layout = known.fitting(X.shape)
        return as_dataset(X, data[1], groups=groups, layout=layout, config=config, classes=classes)
    return as_dataset(data, config=config, classes=None if isinstance(data, Dataset) else classes)

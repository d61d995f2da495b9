"""Images that are given to a run, instead of being read by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddcnn.config import Config, DataConfig
from ddcnn.data import Dataset
from ddcnn.data.arrays import ARRAYS, as_dataset
from ddcnn.errors import DataError

Given = Any
"""A `Dataset`, a pair (X, y), a table of files and labels, or nothing."""

_FOR_FILES = ("window", "classes", "image_size", "resize", "group_pattern")


def taken(config: Config, data: Given) -> tuple[Config, Dataset | None]:
    """Return the configuration of a run on images that are given, and these as a data set.

    Raises
    ------
    DataError
        They cannot be used, or the configuration asks for what is done to files only.
    """
    if data is None:
        return config, None
    dataset = as_given(data, config.data)
    asked = [name for name in _FOR_FILES if getattr(config.data, name) is not None]
    if asked and isinstance(data, tuple | list):
        raise DataError(f"data.{asked[0]} is for files, and these images are given in memory; leave it out")
    if dataset.name == config.data.source:
        return config, dataset
    source = config.data.model_copy(update={"source": ARRAYS})
    return config.model_copy(update={"data": source}), dataset


def as_given(data: Given, config: DataConfig, classes: Sequence[str] | None = None) -> Dataset:
    """Return what was given as a data set; ``classes`` are the names, where they are known."""
    if isinstance(data, tuple | list):
        if len(data) not in (2, 3):
            raise DataError(f"data should be (X, y) or (X, y, groups), got {len(data)} parts; see ddcnn.as_dataset")
        groups = data[2] if len(data) == 3 else None
        return as_dataset(data[0], data[1], groups=groups, config=config, classes=classes)
    return as_dataset(data, config=config, classes=None if isinstance(data, Dataset) else classes)

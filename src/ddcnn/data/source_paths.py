"""Which files and folders a run reads: nothing may be written over them, or among images."""

from __future__ import annotations

from pathlib import Path

from ddcnn.config import Config, DataConfig
from ddcnn.data.sources import is_foreign
from ddcnn.errors import DataError
from ddcnn.folders import is_within


def named_paths(config: DataConfig) -> list[Path]:
    """Return the files and folders that a configuration names and that are there: PATH, and ``data.directory``."""
    named = [_path_of(config), None if config.directory is None else config.directory.expanduser()]
    return [path for path in named if path is not None and path.exists()]


def read_by(config: Config) -> list[Path]:
    """Return the files and folders that a run reads: those of its data, and where its networks begin."""
    weights = config.init.weights
    return [*named_paths(config.data), *([weights] if weights is not None and weights.exists() else [])]


def source_folder(config: DataConfig) -> Path | None:
    """Return PATH of a source such as ``folder:PATH`` if it is a folder: what else is put there may be read as data."""
    path = _path_of(config)
    return path if path is not None and path.is_dir() else None


def check_dest(path: Path, config: DataConfig) -> None:
    """Make sure that a store is not written over the images that it is made from, or among them.

    Raises
    ------
    DataError
        ``path`` is the file or folder of the source, lies in it, or holds it; or it holds ``data.directory``.
    """
    source = _path_of(config)
    for one in named_paths(config):
        if is_within(one, path) or (one == source and is_within(path, one)):
            raise DataError(f"{path} and {one}, from which it would be made, should lie apart; choose another DEST")


def _path_of(config: DataConfig) -> Path | None:
    """Return PATH of a source such as ``folder:PATH``; of ``module:function`` there is none."""
    _, _, path = config.source.partition(":")
    return Path(path).expanduser() if path and not is_foreign(config.source) else None

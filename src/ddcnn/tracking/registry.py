"""Trackers by name."""

from __future__ import annotations

import importlib

from ddcnn.errors import ConfigError
from ddcnn.extras import needed
from ddcnn.tracking.tracker import Tracker

_PLACES = {"tensorboard": ("tensorboard", "on_tensorboard"), "mlflow": ("mlflow", "on_mlflow")}
"""The package that each needs, and the file here that uses it."""


def open_tracker(name: str) -> Tracker:
    """Return a tracker.

    Raises
    ------
    ConfigError
        Its package is not installed.
    """
    package, file = _PLACES[name]
    with needed(f"track = {name} needs {package}", "track", ConfigError):
        importlib.import_module(package)
    tracker: Tracker = importlib.import_module(f"ddcnn.tracking.{file}").TRACKER()
    return tracker

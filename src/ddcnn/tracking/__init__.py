"""Trackers: who shows the epochs and results of runs beside ``metrics.jsonl``, which is always written."""

from ddcnn.tracking.registry import open_tracker
from ddcnn.tracking.tracker import Tracker, place_of

__all__ = ["Tracker", "open_tracker", "place_of"]

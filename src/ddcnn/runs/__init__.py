"""A run on disk: its folder, its manifest, reading it safely, saving and loading its networks."""

from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load

__all__ = ["RunFolder", "load"]

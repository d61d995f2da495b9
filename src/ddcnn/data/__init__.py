"""Images and labels: where they come from, and which of them train, validate and test."""

from ddcnn.data.arrays import as_dataset
from ddcnn.data.dataset import Dataset
from ddcnn.data.images import read_image
from ddcnn.data.sources import open_data, register_source
from ddcnn.data.splits import Split, folds, hold_out, make_split

__all__ = [
    "Dataset",
    "Split",
    "as_dataset",
    "folds",
    "hold_out",
    "make_split",
    "open_data",
    "read_image",
    "register_source",
]

"""Train image and volume classifiers by domain decomposition.

Cut each image into subdomains, train one small CNN per subdomain without any communication, and let a dense network
make the global decision; or train the whole as one model, started from the local CNNs.

Names are imported when they are first used, so that ``import ddcnn`` and ``ddcnn --help`` do not wait for PyTorch.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from ddcnn.aggregation import Average, Dense, Vote
    from ddcnn.config import Config
    from ddcnn.data import Dataset, open_data
    from ddcnn.decomposition import Decomposition, Grid, Subdomain, cut, reassemble
    from ddcnn.errors import DdcnnError
    from ddcnn.experiments import Comparison, compare, evaluate, experiment, resume, train
    from ddcnn.fusion import FusedCNN, fuse, unfuse
    from ddcnn.models import CNN3D, VGG9, LocalCNNs, ResNet20
    from ddcnn.network import CNNDNN
    from ddcnn.runs import load

_PLACES = {
    "aggregation": ("Average", "Dense", "Vote"),
    "config": ("Config",),
    "data": ("Dataset", "open_data"),
    "decomposition": ("Decomposition", "Grid", "Subdomain", "cut", "reassemble"),
    "errors": ("DdcnnError",),
    "experiments": ("Comparison", "compare", "evaluate", "experiment", "resume", "train"),
    "fusion": ("FusedCNN", "fuse", "unfuse"),
    "models": ("CNN3D", "LocalCNNs", "VGG9", "ResNet20"),
    "network": ("CNNDNN",),
    "runs": ("load",),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__version__ = _version("ddcnn")

__all__ = [
    "CNN3D",
    "CNNDNN",
    "VGG9",
    "Average",
    "Comparison",
    "Config",
    "Dataset",
    "DdcnnError",
    "Decomposition",
    "Dense",
    "FusedCNN",
    "Grid",
    "LocalCNNs",
    "ResNet20",
    "Subdomain",
    "Vote",
    "compare",
    "cut",
    "evaluate",
    "experiment",
    "fuse",
    "load",
    "open_data",
    "reassemble",
    "resume",
    "train",
    "unfuse",
]


def __getattr__(name: str) -> _Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'ddcnn' has no attribute {name!r}")
    return getattr(_import_module(f"ddcnn.{_PLACE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

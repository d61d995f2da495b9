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
    from ddcnn.aggregation import Attention, Average, Dense, Gated, Vote, WeightedAverage
    from ddcnn.config import Config
    from ddcnn.data import Dataset, as_dataset, open_data
    from ddcnn.decomposition import (
        Boxes,
        Decomposition,
        Grid,
        Interleaved,
        Masked,
        Rings,
        Subdomain,
        Triangles,
        Voronoi,
        WithCoarse,
        cut,
        reassemble,
    )
    from ddcnn.errors import DdcnnError
    from ddcnn.estimator import DomainDecomposedClassifier
    from ddcnn.experiments import Comparison, Plan, compare, evaluate, experiment, fit, plan, resume, train
    from ddcnn.explaining import Explanation, explain
    from ddcnn.exporting import export
    from ddcnn.fusion import FusedCNN, fuse, unfuse
    from ddcnn.models import CNN3D, VGG9, LocalCNNs, ResNet20
    from ddcnn.network import CNNDNN
    from ddcnn.runs import load

_PLACES = {
    "aggregation": ("Attention", "Average", "Dense", "Gated", "Vote", "WeightedAverage"),
    "config": ("Config",),
    "data": ("Dataset", "as_dataset", "open_data"),
    "decomposition": (
        "Boxes",
        "Decomposition",
        "Grid",
        "Interleaved",
        "Masked",
        "Rings",
        "Subdomain",
        "Triangles",
        "Voronoi",
        "WithCoarse",
        "cut",
        "reassemble",
    ),
    "errors": ("DdcnnError",),
    "estimator": ("DomainDecomposedClassifier",),
    "experiments": ("Comparison", "Plan", "compare", "evaluate", "experiment", "fit", "plan", "resume", "train"),
    "explaining": ("Explanation", "explain"),
    "exporting": ("export",),
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
    "Attention",
    "Average",
    "Boxes",
    "Comparison",
    "Config",
    "Dataset",
    "DdcnnError",
    "Decomposition",
    "Dense",
    "DomainDecomposedClassifier",
    "Explanation",
    "FusedCNN",
    "Gated",
    "Grid",
    "Interleaved",
    "LocalCNNs",
    "Masked",
    "Plan",
    "ResNet20",
    "Rings",
    "Subdomain",
    "Triangles",
    "Voronoi",
    "Vote",
    "WeightedAverage",
    "WithCoarse",
    "as_dataset",
    "compare",
    "cut",
    "evaluate",
    "experiment",
    "explain",
    "export",
    "fit",
    "fuse",
    "load",
    "open_data",
    "plan",
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

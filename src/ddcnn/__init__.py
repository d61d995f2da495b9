"""Train image and volume classifiers by domain decomposition.

Cut each image into subdomains, train one small CNN per subdomain without any communication, and let a dense network
make the global decision; or train the whole as one model, started from the local CNNs.
"""

from importlib.metadata import version as _version

from ddcnn.aggregation import Average, Dense, Vote
from ddcnn.config import Config
from ddcnn.decomposition import Decomposition, Grid, Subdomain, cut, reassemble
from ddcnn.errors import DdcnnError
from ddcnn.experiments import Comparison, compare, evaluate, train
from ddcnn.fusion import FusedCNN, LocalCNNs, fuse, unfuse
from ddcnn.models import VGG9, ResNet20
from ddcnn.network import CNNDNN
from ddcnn.strategies.saved import load_network as load

__version__ = _version("ddcnn")

__all__ = [
    "CNNDNN",
    "VGG9",
    "Average",
    "Comparison",
    "Config",
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
    "fuse",
    "load",
    "reassemble",
    "train",
    "unfuse",
]

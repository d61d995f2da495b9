"""Where local CNNs are trained: in this process, in worker processes, or on a Ray cluster.

And the ranks over which one coherent model is spread.
"""

from ddcnn.engines.in_process import InProcess
from ddcnn.engines.joining import check_alone, joined, launched, refuse_ranks
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.parcel import Parcel
from ddcnn.engines.place import Place
from ddcnn.engines.processes import Processes
from ddcnn.engines.ranks import ALONE, Ranks
from ddcnn.engines.ray_train import run_on_ranks
from ddcnn.engines.registry import build_engine
from ddcnn.engines.spread import SpreadCheckpoints
from ddcnn.engines.streams import OwnStream
from ddcnn.engines.task import Engine, Failure, Task

__all__ = [
    "ALONE",
    "Engine",
    "Failure",
    "InProcess",
    "OnRay",
    "OwnStream",
    "Parcel",
    "Place",
    "Processes",
    "Ranks",
    "SpreadCheckpoints",
    "Task",
    "build_engine",
    "check_alone",
    "joined",
    "launched",
    "refuse_ranks",
    "run_on_ranks",
]

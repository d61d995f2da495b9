"""Where local CNNs are trained: here, in worker processes, or on Ray; and ranks, over which one model is spread."""

from ddcnn.engines.in_process import InProcess
from ddcnn.engines.joining import Place, check_alone, joined, refuse_ranks
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.parcel import Parcel
from ddcnn.engines.processes import Processes
from ddcnn.engines.ranks import ALONE, Ranks
from ddcnn.engines.registry import build_engine
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
    "Task",
    "build_engine",
    "check_alone",
    "joined",
    "refuse_ranks",
]

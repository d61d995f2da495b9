"""Where local CNNs are trained: in this process, in worker processes, or on a Ray cluster."""

from ddcnn.engines.in_process import InProcess
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.parcel import Parcel
from ddcnn.engines.processes import Processes
from ddcnn.engines.registry import build_engine
from ddcnn.engines.task import Engine, Failure, Task

__all__ = ["Engine", "Failure", "InProcess", "OnRay", "Parcel", "Processes", "Task", "build_engine"]

"""Where local CNNs are trained: in this process, in worker processes, or on a Ray cluster.

And the ranks over which one coherent model is spread.
"""

from ddcnn.engines.in_process import InProcess
from ddcnn.engines.launcher_environment import LauncherEnvironment
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.process_group import check_alone, joined, launched, refuse_ranks
from ddcnn.engines.processes import Processes
from ddcnn.engines.rank_checkpoints import RankCheckpoints
from ddcnn.engines.rank_distribution import RankDistribution
from ddcnn.engines.ranks import ALONE, Ranks
from ddcnn.engines.registry import ENGINES, build_engine
from ddcnn.engines.task import Engine, Failure, RankStarter, Task
from ddcnn.engines.task_payload import TaskPayload

__all__ = [
    "ALONE",
    "ENGINES",
    "Engine",
    "Failure",
    "InProcess",
    "LauncherEnvironment",
    "OnRay",
    "Processes",
    "RankCheckpoints",
    "RankDistribution",
    "RankStarter",
    "Ranks",
    "Task",
    "TaskPayload",
    "build_engine",
    "check_alone",
    "joined",
    "launched",
    "refuse_ranks",
]

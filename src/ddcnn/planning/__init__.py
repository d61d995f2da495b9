"""What fits, what is fastest here, and what ``auto`` means: decided before a training, and recorded in the run."""

from ddcnn.planning.batch_size import with_batch_size
from ddcnn.planning.compute import ComputePlan, find_device
from ddcnn.planning.footprint import Footprint, Operations, footprint
from ddcnn.planning.measured_choices import choose_fastest, seconds_alone
from ddcnn.planning.memory import MemoryPlan, plan_memory
from ddcnn.planning.setup import Setup, decide, open_images, prepare
from ddcnn.planning.threads import Threads, choose_threads, computing_with, keep_threads
from ddcnn.planning.trial import Trial, try_out
from ddcnn.planning.work import Work

__all__ = [
    "ComputePlan",
    "Footprint",
    "MemoryPlan",
    "Operations",
    "Setup",
    "Threads",
    "Trial",
    "Work",
    "choose_fastest",
    "choose_threads",
    "computing_with",
    "decide",
    "find_device",
    "footprint",
    "keep_threads",
    "open_images",
    "plan_memory",
    "prepare",
    "seconds_alone",
    "try_out",
    "with_batch_size",
]

"""What is trained in which order: global, local (then an aggregation), coherent, transfer."""

from ddcnn.planning.measured_choices import resolve
from ddcnn.planning.memory import Plan, plan_memory
from ddcnn.runs.networks import load
from ddcnn.strategies.coherent import train_coherent, transfer
from ddcnn.strategies.global_cnn import train_global
from ddcnn.strategies.local import LocalResult, aggregate, train_local
from ddcnn.strategies.predict import local_probabilities
from ddcnn.strategies.problem import Problem, find_device, prepare
from ddcnn.strategies.result import StrategyResult

__all__ = [
    "LocalResult",
    "Plan",
    "Problem",
    "StrategyResult",
    "aggregate",
    "find_device",
    "load",
    "local_probabilities",
    "plan_memory",
    "prepare",
    "resolve",
    "train_coherent",
    "train_global",
    "train_local",
    "transfer",
]

"""What is trained in which order: global, local (then an aggregation), coherent, transfer."""

from ddcnn.strategies.choices import resolve
from ddcnn.strategies.coherent import train_coherent, transfer
from ddcnn.strategies.local import Local, aggregate, train_local
from ddcnn.strategies.memory import Plan, plan_memory
from ddcnn.strategies.predict import local_probabilities
from ddcnn.strategies.problem import Problem, find_device, prepare
from ddcnn.strategies.saved import load
from ddcnn.strategies.trained import Trained
from ddcnn.strategies.undivided import train_global

__all__ = [
    "Local",
    "Plan",
    "Problem",
    "Trained",
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

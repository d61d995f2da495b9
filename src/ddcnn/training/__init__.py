"""One step, one loop: how a network, or many independent ones at once, are trained and measured."""

from ddcnn.training.checkpoint import Checkpoints, Keeper, State, Workspace
from ddcnn.training.clock import counted
from ddcnn.training.evaluation import accuracy_of, evaluate, predict_scores
from ddcnn.training.loop import History, finished, fit
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.metrics import auc, macro_f1
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.progress import Progress
from ddcnn.training.stage import Stage, peak_of_process
from ddcnn.training.step import Step, balanced_weights, member_losses
from ddcnn.training.trainee import Single, Trainee

__all__ = [
    "Checkpoints",
    "History",
    "Keeper",
    "MemberOptimizer",
    "PrecisionName",
    "Progress",
    "Single",
    "Stage",
    "State",
    "Step",
    "Trainee",
    "Workspace",
    "accuracy_of",
    "auc",
    "autocast",
    "balanced_weights",
    "counted",
    "evaluate",
    "finished",
    "fit",
    "macro_f1",
    "member_losses",
    "peak_of_process",
    "predict_scores",
]

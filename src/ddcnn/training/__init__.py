"""One step, one loop: how a network, or many independent ones at once, are trained and measured."""

from ddcnn.training.loop import History, accuracy_of, evaluate, fit, predict_scores
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.metrics import auc, macro_f1
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.progress import Progress
from ddcnn.training.stage import Stage
from ddcnn.training.step import Step, balanced_weights, member_losses
from ddcnn.training.trainee import Single, Trainee

__all__ = [
    "History",
    "MemberOptimizer",
    "PrecisionName",
    "Progress",
    "Single",
    "Stage",
    "Step",
    "Trainee",
    "accuracy_of",
    "auc",
    "autocast",
    "balanced_weights",
    "evaluate",
    "fit",
    "macro_f1",
    "member_losses",
    "predict_scores",
]

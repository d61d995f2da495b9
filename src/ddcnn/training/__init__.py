"""One step, one loop: how a network, or many independent ones at once, are trained and measured."""

from ddcnn.training.checkpoint import Checkpoints, CheckpointStore, State, Workspace
from ddcnn.training.distribution import Distribution
from ddcnn.training.elapsed import elapsed_across_restarts
from ddcnn.training.evaluation import accuracy_of, evaluate, predict_outputs, predict_scores
from ddcnn.training.loop import History, finished, fit
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import Single, TrainableMembers
from ddcnn.training.metrics import auc, class_figures, macro_f1, sureness
from ddcnn.training.objective import (
    At,
    CrossEntropy,
    FadingLocalLosses,
    Loss,
    Objective,
    balanced_weights,
    cross_entropy_of,
    member_losses,
)
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.progress import Progress, Several
from ddcnn.training.stage_timer import StageTimer, peak_of_process
from ddcnn.training.step import Step
from ddcnn.training.whole_network import WholeNetwork

__all__ = [
    "At",
    "CheckpointStore",
    "Checkpoints",
    "CrossEntropy",
    "Distribution",
    "FadingLocalLosses",
    "History",
    "Loss",
    "MemberOptimizer",
    "Objective",
    "PrecisionName",
    "Progress",
    "Several",
    "Single",
    "StageTimer",
    "State",
    "Step",
    "TrainableMembers",
    "WholeNetwork",
    "Workspace",
    "accuracy_of",
    "auc",
    "autocast",
    "balanced_weights",
    "class_figures",
    "cross_entropy_of",
    "elapsed_across_restarts",
    "evaluate",
    "finished",
    "fit",
    "macro_f1",
    "member_losses",
    "peak_of_process",
    "predict_outputs",
    "predict_scores",
    "sureness",
]

"""Questions, each a set of strategy runs; the first: which strategy is how accurate, how large, how fast."""

from ddcnn.experiments.compare import compare, resume, train
from ddcnn.experiments.evaluation import evaluate, own_data
from ddcnn.experiments.experiment import Outcome, experiment, plan_experiment
from ddcnn.experiments.fitting import fit
from ddcnn.experiments.plan import Plan, plan
from ddcnn.experiments.record import Comparison

__all__ = [
    "Comparison",
    "Outcome",
    "Plan",
    "compare",
    "evaluate",
    "experiment",
    "fit",
    "own_data",
    "plan",
    "plan_experiment",
    "resume",
    "train",
]

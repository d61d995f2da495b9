"""Questions, each a set of strategy runs; the first: which strategy is how accurate, how large, how fast."""

from ddcnn.experiments.compare import compare, resume, train
from ddcnn.experiments.evaluation import evaluate
from ddcnn.experiments.record import Comparison

__all__ = ["Comparison", "compare", "evaluate", "resume", "train"]

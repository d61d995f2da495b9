"""The questions that the paper left open: one file each, and a line in the registry."""

from ddcnn.experiments.questions.question import Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.questions.registry import EXPERIMENTS

__all__ = ["EXPERIMENTS", "Curve", "Experiment", "Findings", "Pair", "Table", "Variant"]

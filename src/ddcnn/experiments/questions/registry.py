"""Experiments by name, in the order of `ddcnn experiment --list`."""

from __future__ import annotations

from ddcnn.errors import ConfigError
from ddcnn.experiments.questions.aggregations import AGGREGATIONS
from ddcnn.experiments.questions.decompositions import DECOMPOSITIONS
from ddcnn.experiments.questions.initialization import INITIALIZATION
from ddcnn.experiments.questions.labels import LABELS
from ddcnn.experiments.questions.levels import LEVELS_EXPERIMENT
from ddcnn.experiments.questions.loss_surface import LOSS_SURFACE
from ddcnn.experiments.questions.missing import MISSING
from ddcnn.experiments.questions.pretraining import PRETRAINING
from ddcnn.experiments.questions.question import Experiment
from ddcnn.experiments.questions.sensitivity import SENSITIVITY
from ddcnn.experiments.questions.strategies import STRATEGIES
from ddcnn.experiments.questions.subdomains import SUBDOMAINS
from ddcnn.experiments.questions.timing import TIMING
from ddcnn.registry import Registry

EXPERIMENTS: Registry[Experiment] = Registry(
    "experiment",
    ConfigError,
    {
        "strategies": STRATEGIES,
        "subdomains": SUBDOMAINS,
        "levels": LEVELS_EXPERIMENT,
        "decompositions": DECOMPOSITIONS,
        "aggregations": AGGREGATIONS,
        "initialization": INITIALIZATION,
        "pretraining": PRETRAINING,
        "missing": MISSING,
        "timing": TIMING,
        "sensitivity": SENSITIVITY,
        "loss-surface": LOSS_SURFACE,
        "labels": LABELS,
    },
    of=Experiment,
)

"""Initialisations by name."""

from __future__ import annotations

from ddcnn.errors import ConfigError
from ddcnn.planning import Setup, Work
from ddcnn.registry import Registry
from ddcnn.strategies.initialization.contrastive import CONTRASTIVE
from ddcnn.strategies.initialization.shared import SHARED
from ddcnn.strategies.initialization.start import Initialization, Start
from ddcnn.strategies.initialization.trained import TRAINED
from ddcnn.strategies.initialization.weights import WEIGHTS
from ddcnn.strategies.strategy import StrategyContext

RANDOM = Initialization(lambda _context: Start(), "random", "All networks begin with random parameters.")

INITIALIZATIONS: Registry[Initialization] = Registry(
    "initialization",
    ConfigError,
    {"random": RANDOM, "weights": WEIGHTS, "shared": SHARED, "contrastive": CONTRASTIVE, "trained": TRAINED},
    of=Initialization,
)


def start_of(context: StrategyContext) -> Start:
    """Return where the trainings of a run begin; found once for all of its strategies."""
    if "start" not in context.found:
        context.found["start"] = INITIALIZATIONS.find(context.setup.config.init.way).run(context)
    start: Start = context.found["start"]
    return start


def start_works(setup: Setup) -> list[Work]:
    """Describe what is trained to find where the trainings of a run begin."""
    return INITIALIZATIONS.find(setup.config.init.way).works(setup)


def check_start(setup: Setup) -> None:
    """Raise a `DdcnnError` if trainings cannot begin as the configuration says."""
    INITIALIZATIONS.find(setup.config.init.way).check(setup)

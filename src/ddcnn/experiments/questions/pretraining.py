"""Whether networks that have learned from other images before are better than those that begin at random."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.planning import Setup

STARTS = {"random": "at random", "weights": "from weights"}
_RESULTS = {"cnn-dnn": "CNN-DNN", "transfer": "transfer"}


def arm(result: str, start: str) -> str:
    """Return what readers call an arm: ``CNN-DNN, from weights``."""
    return f"{result}, {STARTS[start]}"


def variants(setup: Setup) -> Sequence[Variant]:
    """Return a transfer, and with it a CNN-DNN, from random parameters and from the weights that the user gives."""
    weights = str(setup.config.init.weights)
    begins = {"random": {"name": "random", "weights": None}, "weights": {"name": "weights", "weights": weights}}
    return [
        Variant(
            start,
            {"strategy": "transfer", "init": init},
            {result: arm(label, start) for result, label in _RESULTS.items()},
            like="" if start == "random" else "random",
        )
        for start, init in begins.items()
    ]


PRETRAINING = Experiment(
    "Does it help to begin with what was learned from other images?",
    variants,
    pairs=(
        *(Pair(arm(label, "weights"), arm(label, "random")) for label in _RESULTS.values()),
        *(Pair(arm("transfer", start), arm("CNN-DNN", start)) for start in STARTS),
    ),
    asks={"init.weights": "--weights RUN"},
)

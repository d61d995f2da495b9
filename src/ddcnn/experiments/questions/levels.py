"""What a coarse level and features add, each alone and both together."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.planning import Setup

LEVELS = {"one": ("one level", None), "two": ("two levels", "auto")}
FEATURES = ("probability", "penultimate")
_RESULTS = {"cnn-dnn": "CNN-DNN", "transfer": "transfer"}


def variants(_setup: Setup) -> Sequence[Variant]:
    """Return a transfer, and with it a CNN-DNN, per level and kind of number handed over; the published form first."""
    orders = (("one", "probability"), ("two", "penultimate"), ("two", "probability"), ("one", "penultimate"))
    return [
        Variant(
            f"{level}-{features}",
            {
                "strategy": "transfer",
                "decomposition": {"coarse": LEVELS[level][1]},
                "aggregation": {"features": features},
            },
            {result: arm(label, level, features) for result, label in _RESULTS.items()},
        )
        for level, features in orders
    ]


def arm(result: str, level: str, features: str) -> str:
    """Return what readers call an arm: ``CNN-DNN, two levels, features``."""
    return f"{result}, {LEVELS[level][0]}, {'features' if features == 'penultimate' else 'probabilities'}"


LEVELS_EXPERIMENT = Experiment(
    "What do a coarse level and penultimate features add to the CNN-DNN and to transfer, alone and together?",
    variants,
    pairs=tuple(
        Pair(arm(result, *one), arm(result, *other))
        for result in _RESULTS.values()
        for one, other in (
            (("two", "penultimate"), ("one", "probability")),
            (("two", "probability"), ("one", "probability")),
            (("one", "penultimate"), ("one", "probability")),
            (("two", "penultimate"), ("one", "penultimate")),
        )
    ),
    defaults={"model": {"name": "resnet20"}},
)

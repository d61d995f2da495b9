"""Transfer against random starts, with the same number of epochs in all."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.experiments.questions.strategies import both_phases
from ddcnn.planning import Setup

RANDOM, BARE, WITH, WITHOUT = "random", "random, no local losses", "transfer with DNN", "transfer without DNN"


def variants(setup: Setup) -> Sequence[Variant]:
    """Return the coherent model from each start; each sees the images in as many epochs."""
    long = {"strategy": "coherent", "training": {"epochs": both_phases(setup)}}
    transfer = {"strategy": "transfer"}
    return (
        Variant("random", long, {"coherent": RANDOM}),
        Variant("random-bare", long | {"coherent": {"local_weight": 0.0}}, {"coherent": BARE}),
        Variant("transfer", transfer | {"transfer": {"carry_aggregation": True}}, {"transfer": WITH}),
        Variant("transfer-no-dnn", transfer | {"transfer": {"carry_aggregation": False}}, {"transfer": WITHOUT}),
    )


INITIALIZATION = Experiment(
    "Does the coherent model end better when it starts from trained local CNNs, at the same number of epochs in all?",
    variants,
    pairs=(Pair(WITH, RANDOM), Pair(WITHOUT, RANDOM), Pair(WITH, WITHOUT), Pair(WITH, BARE), Pair(RANDOM, BARE)),
)

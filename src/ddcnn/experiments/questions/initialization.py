"""Where the coherent model begins, with the same number of epochs in all; and a global CNN that is composed."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.experiments.questions.strategies import both_phases
from ddcnn.planning import Setup

RANDOM, BARE, WITH, WITHOUT = "random", "random, no local losses", "transfer with DNN", "transfer without DNN"
SHARED, CONTRASTIVE = "transfer from one CNN for all", "transfer from no labels"
GLOBAL, COMPOSED = "global CNN", "composed CNN"


def variants(setup: Setup) -> Sequence[Variant]:
    """Return the coherent model from each start, and the global CNN from random and from composed parameters.

    Each sees the images in as many epochs. What comes before the local CNNs takes half of theirs.
    """
    first, total = setup.config.training.epochs, both_phases(setup)
    before = max(1, first // 2)
    long = {"strategy": "coherent", "training": {"epochs": total}}
    transfer = {"strategy": "transfer"}
    later = {"training": {"epochs": max(1, first - before)}, "transfer": {"epochs": total - first}}
    shared, contrastive = (
        transfer | later | {"init": {"name": name, "epochs": before}} for name in ("shared", "contrastive")
    )
    compose = {"strategy": "compose", "compose": {"epochs": total - first}}
    return (
        Variant("random", long, {"coherent": RANDOM}),
        Variant("random-bare", long | {"coherent": {"local_weight": 0.0}}, {"coherent": BARE}),
        Variant("transfer", transfer | {"transfer": {"carry_aggregation": True}}, {"transfer": WITH}),
        Variant("transfer-no-dnn", transfer | {"transfer": {"carry_aggregation": False}}, {"transfer": WITHOUT}),
        Variant("shared", shared, {"transfer": SHARED}, needed=False),
        Variant("contrastive", contrastive, {"transfer": CONTRASTIVE}, needed=False),
        Variant("global", {"strategy": "global", "training": {"epochs": total}}, {"global": GLOBAL}),
        Variant("compose", compose, {"compose": COMPOSED}, needed=False),
    )


INITIALIZATION = Experiment(
    "Does a model end better when it starts from networks that were trained alone, at equal epochs in all?",
    variants,
    pairs=(
        Pair(WITH, RANDOM),
        Pair(WITHOUT, RANDOM),
        Pair(WITH, WITHOUT),
        Pair(WITH, BARE),
        Pair(WITH, GLOBAL),
        Pair(RANDOM, BARE),
        Pair(SHARED, WITH),
        Pair(CONTRASTIVE, WITH),
        Pair(COMPOSED, GLOBAL),
        Pair(WITH, COMPOSED),
    ),
)

"""Do left-right flips and random crops, the default for photographs, pay on TF-Flowers?

An experiment as a user would add one, in a module of its own:

    PYTHONPATH=benchmarks ddcnn experiment crops:CROPS --data tf_flowers --image-size 64 --epochs 15 --seeds 3
"""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions import Experiment, Pair, Variant
from ddcnn.planning import Setup

ARMS = {
    "default": ("flips and crops", {}),
    "flips": ("flips", {"crop": 1.0}),
    "neither": ("neither", {"augment": False}),
}


def _variants(_setup: Setup) -> Sequence[Variant]:
    return [
        Variant(name, {"strategy": "local", "training": training}, {"cnn-dnn": label})
        for name, (label, training) in ARMS.items()
    ]


CROPS = Experiment(
    "Do flips and random crops of photographs make a CNN-DNN more accurate?",
    _variants,
    pairs=(Pair("flips and crops", "flips"), Pair("flips and crops", "neither"), Pair("flips", "neither")),
)

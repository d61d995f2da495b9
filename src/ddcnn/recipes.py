"""Recipes: functions that return the training part of a configuration, with where its values come from.

`ddcnn.config.Config` merges a recipe under what the user sets, so a saved configuration is complete and a recipe that
changes later does not change a run of today.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fast() -> dict[str, Any]:
    """Few epochs at a high learning rate, for every model here: the default.

    Nesterov SGD with weight decay 5e-4 on all parameters (He et al. 2016; Zagoruyko and Komodakis 2016) under a
    one-cycle schedule (Smith and Topin 2018). Batch size and learning rate are 128 and 0.15, and less for few or large
    images (`ddcnn.planning.batch_size`). The dense network has a shortcut (`ddcnn.aggregation.Dense`), and the local
    CNNs of a coherent model start with losses of their own (`ddcnn.training.FadingLocalLosses`), without which it
    is slow to start. What was tried on a validation split of CIFAR-10 is in ``docs/decisions/recipe.md``.
    """
    return {
        "training": {
            "optimizer": "sgd",
            "lr": "auto",
            "weight_decay": 5e-4,
            "epochs": 10,
            "batch_size": "auto",
            "schedule": "onecycle",
            "warmup": 0.25,
            "label_smoothing": 0.0,
        },
    }


def paper() -> dict[str, Any]:
    """As near to the published training as is known (arXiv 2408.14442): 150 epochs for the local CNNs.

    The optimiser, its rate and the augmentation are not published. Adam at 1e-3 with steps and batch 32 is the Keras
    ResNet20 v1 example, which the publication probably started from; a flip and shifts of a tenth of the image are
    its augmentation. The dense network sees plain probabilities and starts at random.
    """
    return {
        "training": {
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "epochs": 150,
            "batch_size": 32,
            "schedule": "step",
            "milestones": (0.4, 0.6, 0.8, 0.9),
            "gamma": 0.1,
            "label_smoothing": 0.0,
        },
        "aggregation": {"features": "probability", "shortcut": False, "epochs": 150, "weight_decay": 0.0},
        "coherent": {"local_weight": 0.0},
        "transfer": {"lr_factor": 1.0},
    }


RECIPES: dict[str, Callable[[], dict[str, Any]]] = {"fast": fast, "paper": paper}

"""Recipes: functions that return the training part of a configuration, with where its values come from.

`ddcnn.config.Config` merges a recipe under what the user sets, so a saved configuration is complete and a recipe that
changes later does not change a run of today. What each was measured to reach is in ``docs/how-to/recipes.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fast() -> dict[str, Any]:
    """For a first answer, and for comparisons: few epochs at a high learning rate, for every model here. The default.

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
    """For comparison with the publication (arXiv 2408.14442), as near to it as is known: 150 epochs.

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


def strong() -> dict[str, Any]:
    """For the best accuracy, with many epochs: 100, and everything that is known to help convolutional networks.

    Nesterov SGD under a cosine to 0 (Loshchilov and Hutter 2017), weight decay 5e-4 without norms and biases and label
    smoothing 0.1 (He et al., arXiv 1812.01187), light jitter beside the flips, shifts or crops that the data set
    allows, and a running mean of the parameters whose batch norm is measured anew (Izmailov et al. 2018), with a decay
    of 0.998: the mean of about the last 500 steps. ``training.sam=0.05`` adds sharpness-aware minimisation, at twice
    the time, and ``training.cutmix=1`` cutmix.
    """
    return {
        "training": {
            "optimizer": "sgd",
            "lr": "auto",
            "nesterov": True,
            "weight_decay": 5e-4,
            "decay": "weights",
            "epochs": 100,
            "batch_size": "auto",
            "schedule": "cosine",
            "label_smoothing": 0.1,
            "jitter": 0.1,
            "ema": 0.998,
        },
    }


RECIPES: dict[str, Callable[[], dict[str, Any]]] = {"fast": fast, "paper": paper, "strong": strong}

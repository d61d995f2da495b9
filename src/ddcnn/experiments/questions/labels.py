"""Whether networks are better without the training images whose labels are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddcnn.data.doubts import suspects
from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.planning import Setup
from ddcnn.seeds import derive_seed
from ddcnn.strategies import STRATEGIES, Results, StrategyContext, StrategyResult
from ddcnn.strategies.local import LocalResult, aggregate, train_local_cnns
from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.train_groups import train_groups
from ddcnn.training import StageTimer

ALL, WITHOUT, RANDOM = "all images", "without doubtful labels", "without as many others"
_HERE = "ddcnn.experiments.questions.labels"


def _train(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train on all training images, and again without some; labels are doubted by local CNNs that did not see them.

    These are the local CNNs that ``aggregate_on`` = crossfit trains; the mean of their probabilities decides. Of
    validation and test images all stay: nothing is easier to decide for one result than for another.
    """
    data, config = context.setup.data, context.setup.config
    local = train_local_cnns(context)
    assert local.unseen is not None
    found = suspects(data.dataset.labels[local.samples], local.unseen.probabilities.mean(1).double().numpy())
    train, doubted = data.split.train, local.samples[torch.from_numpy(found)]
    context.progress.note(f"labels: {len(doubted):,} of {len(train):,} training images are left out")
    drawn = np.random.default_rng(derive_seed(config.seed, "labels")).permutation(len(train))[: len(doubted)]
    return {
        "all": _aggregated(context, replace(local, samples=train, unseen=None)),
        "cleaned": _again(context, local, train[~torch.isin(train, doubted)], "cleaned"),
        "random": _again(context, local, train[~torch.isin(train, train[torch.from_numpy(drawn)])], "random"),
    }


def _again(context: StrategyContext, local: LocalResult, samples: Tensor, name: str) -> StrategyResult:
    """Train local CNNs on some samples, from where the first ones began."""
    with StageTimer(f"local/{name}", context.setup.compute.device) as stage:
        network, history, missing = train_groups(context, samples, f"local/{name}", start=local.start)
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = history.epochs
    probabilities = LocalProbabilities(context.setup, network, features=local.probabilities.features)
    return _aggregated(context, LocalResult(stage, history, probabilities, samples, None, missing, local.start))


def _aggregated(context: StrategyContext, local: LocalResult) -> StrategyResult:
    """Train the DNN; without checkpoints, which three trainings of one name would share."""
    alone = replace(context, workspace=None)
    return replace(aggregate(alone, local, context.setup.config.aggregation.name), shares_local_cnns=False)


CLEANED = replace(STRATEGIES["local"], run=_train, compared=False)
"""Local CNNs and DNN three times: on all training images, without doubtful labels, and without as many at random."""


def variants(_setup: Setup) -> Sequence[Variant]:
    """Return the one run."""
    values = {"strategy": f"{_HERE}:CLEANED", "aggregation": {"aggregate_on": "crossfit"}}
    return (Variant("labels", values, {"all": ALL, "cleaned": WITHOUT, "random": RANDOM}),)


LABELS = Experiment(
    "Does a CNN-DNN decide better if it is trained without the images whose labels are probably wrong?",
    variants,
    pairs=(Pair(WITHOUT, ALL), Pair(WITHOUT, RANDOM)),
    needs={"cleanlab": "cleanlab"},
)

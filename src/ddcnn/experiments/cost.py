"""What a run will cost on this machine: a few steps are timed, and multiplied by all that there will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ddcnn.decomposition import Subimages
from ddcnn.fusion.choice import measure, training_step
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup
from ddcnn.strategies import STRATEGIES, needed_for
from ddcnn.strategies.initialization import INITIALIZATIONS
from ddcnn.training import PrecisionName, autocast

HOW = (
    "an estimate, rather too high: a training step of the global CNN and of one local CNN of each shape were timed "
    "here and now, one after the other, times their number, and a third for validation and evaluation"
)
_ROUNDS = 1
_BESIDE = 4 / 3  # validation, evaluation, the DNN


@dataclass
class StepTimes:
    """Seconds of training steps, each measured once."""

    _known: dict[str, float] = field(default_factory=dict)

    def whole(self, setup: Setup) -> float:
        """Return the seconds of a step of the global CNN."""
        key = f"global {setup.config.model!r}"
        if key not in self._known:
            self._known[key] = _seconds(setup, setup.networks.global_cnn())
        return self._known[key]

    def local(self, setup: Setup) -> float:
        """Return the seconds of a step of all local CNNs, or of the coherent model, which is hardly more."""
        key = f"local {setup.config.model!r} {setup.config.decomposition!r}"
        if key not in self._known:
            self._known[key] = _local_seconds(setup)
        return self._known[key]


def seconds_of(setup: Setup, names: Sequence[str], times: StepTimes) -> float:
    """Return how long these strategies, and those that they build on, will train."""
    config = setup.config
    steps = setup.data.batches(setup.data.split.train, setup.networks.subdomains).steps
    first = config.training.epochs
    epochs: Mapping[str, Any] = {
        "transfer": config.transfer.epochs or first,
        "compose": (config.compose.epochs or first) + first / config.compose.parts,
    }
    before = INITIALIZATIONS.find(config.init.way).stages
    total = times.local(setup) * steps * (config.init.epochs or first) if before else 0.0
    for name in needed_for(list(names)):
        step = times.whole(setup) if STRATEGIES.find(name).trains == "global" else times.local(setup)
        total += step * steps * epochs.get(name, first)
    return total * _BESIDE


def _local_seconds(setup: Setup) -> float:
    """Return the seconds of a step of all local CNNs one after the other: one of each shape is timed."""
    by_shape: dict[tuple[int, ...], float] = {}
    total = 0.0
    for subdomain in setup.networks.subdomains:
        if subdomain.shape not in by_shape:
            alone = setup.networks.local_cnns([subdomain.index], backend="looped")
            by_shape[subdomain.shape] = _seconds(setup, alone)
        total += by_shape[subdomain.shape]
    return total


def _seconds(setup: Setup, network: LocalCNNs) -> float:
    images = setup.data.batches(setup.data.split.train, network.subdomains, purpose="cost").first()
    assert isinstance(images, Subimages)
    step, asked = training_step(network, images), setup.config.compute.precision

    def timed(precision: PrecisionName) -> None:
        with torch.random.fork_rng(devices=[]), autocast(precision, images.device):  # dropout draws
            step()

    names: tuple[PrecisionName, ...] = ("float32", "bfloat16") if asked == "auto" else (asked,)
    times = measure({name: partial(timed, name) for name in names}, rounds=_ROUNDS)
    return min(min(seconds) for seconds in times.values())

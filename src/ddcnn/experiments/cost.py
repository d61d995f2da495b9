"""What a run will cost on this machine: a few steps are timed, and multiplied by all that there will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddcnn.decomposition import Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion.choice import measure, training_step
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup
from ddcnn.strategies import STRATEGIES, needed_for

HOW = (
    "an estimate: 2 training steps of each network were timed here and now, times the number of steps, and a third for "
    "validation and evaluation"
)
_ROUNDS = 2
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
            self._known[key] = _seconds(setup, _local_cnns(setup))
        return self._known[key]


def seconds_of(setup: Setup, names: Sequence[str], times: StepTimes) -> float:
    """Return how long these strategies, and those that they build on, will train."""
    config = setup.config
    steps = setup.data.batches(setup.data.split.train, setup.networks.subdomains).steps
    epochs: Mapping[str, Any] = {"transfer": config.transfer.epochs or config.training.epochs}
    total = 0.0
    for name in needed_for(list(names)):
        step = times.whole(setup) if STRATEGIES.find(name).trains == "global" else times.local(setup)
        total += step * steps * epochs.get(name, config.training.epochs)
    return total * _BESIDE


def _local_cnns(setup: Setup) -> LocalCNNs:
    if setup.compute.backend != "auto":
        return setup.networks.local_cnns(backend=setup.compute.backend)
    try:
        return setup.networks.local_cnns(backend="fused")
    except FusionError:
        return setup.networks.local_cnns(backend="looped")


def _seconds(setup: Setup, network: LocalCNNs) -> float:
    images = setup.data.batches(setup.data.split.train, network.subdomains, purpose="cost").first()
    assert isinstance(images, Subimages)
    return min(measure({0: training_step(network, images)}, rounds=_ROUNDS)[0])

"""The task of a group of local CNNs: a function of its inputs alone, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddcnn.config import Config
from ddcnn.data.training_data import TrainingData
from ddcnn.engines import TaskPayload
from ddcnn.fusion import Proofs
from ddcnn.machine import staying_below
from ddcnn.planning import ComputePlan, Setup, Work, find_device
from ddcnn.planning.setup import network_factory
from ddcnn.training import Checkpoints, History, Progress, finished


@dataclass(frozen=True)
class GroupResult:
    """Parameters of the local CNNs of a task, under the names of their own class, and how they came about."""

    states: list[dict[str, Tensor]]
    history: History


@dataclass(frozen=True)
class LocalInputs:
    """What all tasks of local CNNs have in common, and how it travels."""

    setup: Setup

    def pack(self, arguments: Mapping[str, Any] | None) -> TaskPayload:
        """Return it as numbers and arrays; with ``arguments``, no more of the images than this task can see."""
        setup = self.setup
        seen = None if arguments is None else [setup.networks.subdomains[n] for n in arguments["indices"]]
        numbers, arrays = setup.data.pack(seen)
        proofs = setup.networks.proofs.certificates()
        return TaskPayload({"config": setup.config.model_dump(mode="json"), "data": numbers, "proofs": proofs}, arrays)

    @classmethod
    def unpack(cls, payload: TaskPayload, device: str) -> LocalInputs:
        """Return what was packed, for another device; the data set has no test images of its own, and no drawings."""
        config, place = Config.parse(payload.numbers["config"]), find_device(device)
        data = TrainingData.unpack(payload.numbers["data"], payload.arrays, config, place)
        networks = network_factory(config, data, Proofs(payload.numbers["proofs"]))
        return cls(Setup(config, data, networks, ComputePlan(config.compute, place)))


def train_group(
    inputs: LocalInputs, arguments: Mapping[str, Any], checkpoints: Checkpoints | None, progress: Progress
) -> GroupResult:
    """Train the local CNNs of some subdomains together.

    Parameters
    ----------
    arguments
        ``indices`` of the subdomains, ``samples`` to train on, and the name of the ``stage``.
    """
    setup, indices = inputs.setup, arguments["indices"]
    work = group_work(setup, indices, torch.tensor(arguments["samples"]), arguments["stage"])
    with staying_below(setup.compute.limit):
        network = work.network()
        history = work.fit(network, progress=progress, checkpoints=checkpoints)
    states = [{k: v.cpu().clone() for k, v in network.member_state(n).items()} for n in range(network.members)]
    return GroupResult(states, history)


def group_work(setup: Setup, indices: Sequence[int], samples: Tensor, stage: str) -> Work:
    """Describe the training of the local CNNs of some subdomains together."""
    data, networks = setup.data, setup.networks
    subdomains = [networks.subdomains[n] for n in indices]
    return Work(
        stage,
        partial(networks.local_cnns, indices, backend=setup.compute.backend),
        data.batches(samples, subdomains, augment=True),
        data.batches(data.split.validation, subdomains),
        data.training,
        data.classes,
        own=[data.training.of(index) for index in indices],
        precision=setup.compute.precision,
        placed=True,
    )


def collect_group(checkpoints: Checkpoints) -> GroupResult | None:
    """Return what `train_group` left in its checkpoints; None: it is not done."""
    found = finished(checkpoints)
    return None if found is None else GroupResult(*found)


def joined(results: Mapping[tuple[int, ...], GroupResult], members: int) -> History:
    """Return the history of groups that were trained one by one, as if they had been trained as one."""
    histories = [one.history for _, one in sorted(results.items())]
    best: list[int] = [0] * members
    diverged: list[int | None] = [None] * members
    for group, one in results.items():
        for position, n in enumerate(group):
            best[n], diverged[n] = one.history.best_epochs[position], one.history.diverged[position]
    return replace(
        histories[0],
        rows=[row for h in histories for row in h.rows],
        best_epochs=best,
        diverged=diverged,
        seconds=sum(h.seconds for h in histories),
        steps=max(h.steps for h in histories),
        earlier_seconds=sum(h.earlier_seconds for h in histories),
        peak_memory_bytes=max((h.peak_memory_bytes or 0 for h in histories), default=0) or None,
    )

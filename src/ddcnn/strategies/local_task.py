"""The task of a group of local CNNs: a function of its inputs alone, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddcnn.config import Config
from ddcnn.data.training_data import TrainingData
from ddcnn.engines import TaskPayload
from ddcnn.fusion import Proofs
from ddcnn.machine import staying_below
from ddcnn.models import LocalCNNs
from ddcnn.planning import ComputePlan, Setup, Work, find_device
from ddcnn.planning.setup import network_factory
from ddcnn.seeds import derive_seed
from ddcnn.training import Checkpoints, History, Progress, TrainableMembers, cross_entropy_of, finished
from ddcnn.training.closed_form import Solvable, is_solvable
from ddcnn.training.local_objectives import LOCAL_OBJECTIVES, About, objective_of


@dataclass(frozen=True)
class GroupResult:
    """Parameters of the local CNNs of a task, under the names of their own class, and how they came about."""

    states: list[dict[str, Tensor]]
    history: History


@dataclass(frozen=True)
class LocalInputs:
    """What all tasks of local CNNs have in common, and how it travels.

    Attributes
    ----------
    local
        What local CNNs begin with, by the index of their subdomain; those that are not there begin at random.
    """

    setup: Setup
    local: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def pack(self, arguments: Mapping[str, Any] | None) -> TaskPayload:
        """Return it as numbers and arrays; with ``arguments``, no more of the images than this task can see."""
        setup = self.setup
        seen = None if arguments is None else [setup.networks.subdomains[n] for n in arguments["indices"]]
        numbers, arrays = setup.data.pack(seen)
        for n in self.local if arguments is None else arguments["indices"]:
            arrays |= {f"begin.{n}.{name}": value.cpu().numpy() for name, value in self.local.get(n, {}).items()}
        proofs = setup.networks.proofs.certificates()
        return TaskPayload({"config": setup.config.model_dump(mode="json"), "data": numbers, "proofs": proofs}, arrays)

    @classmethod
    def unpack(cls, payload: TaskPayload, device: str) -> LocalInputs:
        """Return what was packed, for another device; the data set has no test images of its own, and no drawings."""
        config, place = Config.parse(payload.numbers["config"]), find_device(device)
        data = TrainingData.unpack(payload.numbers["data"], payload.arrays, config, place)
        networks = network_factory(config, data, Proofs(payload.numbers["proofs"]))
        local: dict[int, dict[str, Tensor]] = {}
        for key, array in payload.arrays.items():
            start, n, name = (*key.split(".", 2), "", "")[:3]
            if start == "begin":
                local.setdefault(int(n), {})[name] = torch.from_numpy(array)
        return cls(Setup(config, data, networks, ComputePlan(config.compute, place)), local)


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
    samples, stage = torch.tensor(arguments["samples"]), arguments["stage"]
    work = group_work(setup, indices, samples, stage, from_random=not inputs.local)
    with staying_below(setup.compute.limit):
        network = local_cnns_of(inputs, indices)
        history = work.fit(with_heads(setup, network, indices), progress=progress, checkpoints=checkpoints)
    return GroupResult(states_of(network), history)


def local_cnns_of(inputs: LocalInputs, indices: Sequence[int]) -> LocalCNNs:
    """Return the local CNNs of some subdomains, as they begin."""
    network = inputs.setup.networks.local_cnns(indices, backend=inputs.setup.compute.backend)
    for position, n in enumerate(indices):
        if n in inputs.local:
            network.load_member_state(position, dict(inputs.local[n]))
    return network


def about_heads(setup: Setup, indices: Sequence[int]) -> About:
    """Return what heads must know of the local CNNs of some subdomains."""
    seeds = [derive_seed(setup.config.seed, "head", n) for n in indices]
    return About(max(setup.networks.widths), setup.networks.channels, seeds)


def states_of(network: LocalCNNs) -> list[dict[str, Tensor]]:
    """Return copies of the states of local CNNs, on the CPU."""
    return [{k: v.cpu().clone() for k, v in network.member_state(n).items()} for n in range(network.members)]


def with_heads(setup: Setup, network: LocalCNNs, indices: Sequence[int]) -> TrainableMembers:
    """Return what is trained: local CNNs of some subdomains, perhaps with heads that their objective looks at."""
    found = LOCAL_OBJECTIVES.find(setup.data.training.local_objective)
    return network if found is None or is_solvable(network) else found.head(network, about_heads(setup, indices))


def group_work(
    setup: Setup, indices: Sequence[int], samples: Tensor, stage: str, *, from_random: bool | None = None
) -> Work:
    """Describe the training of the local CNNs of some subdomains together.

    Parameters
    ----------
    from_random
        Whether they begin at random; None: as the configuration says.
    """
    if from_random is None:
        from_random = setup.config.init.at_random
    data, networks = setup.data, setup.networks
    subdomains = [networks.subdomains[n] for n in indices]
    training = data.training.from_random() if from_random else data.training
    cross_entropy = cross_entropy_of(training, data.labels[samples.to(data.device)], data.classes)

    def build() -> TrainableMembers:
        return with_heads(setup, networks.local_cnns(indices, backend=setup.compute.backend), indices)

    return Work(
        stage,
        build,
        data.batches(samples, subdomains, augment=True),
        data.batches(data.split.validation, subdomains),
        training,
        data.classes,
        own=[training.of(index) for index in indices],
        precision=setup.compute.precision,
        graphs=setup.compute.graphs,
        objective=objective_of(training, cross_entropy),
        placed=True,
        solved=isinstance(networks.local_module(indices[0]), Solvable),
    )


def group_works(setup: Setup, stage: str, describe: Callable[[Sequence[int]], Work]) -> list[Work]:
    """Describe the trainings of all groups; those of equal shapes once, with their number."""
    alike: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
    for group in setup.compute.groups(setup.owned):
        views = [setup.networks.subdomains[n] for n in group]
        alike.setdefault(tuple(sorted((s.shape, s.added_channels) for s in views)), []).append(group)
    return [replace(describe(groups[0]), times=len(groups), alike=(stage, shapes)) for shapes, groups in alike.items()]


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

"""Which parameters have no weight decay, which are held at the start, and which learn more slowly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from ddcnn.config import TrainingConfig
from ddcnn.training.members import Slot, TrainableMembers, slots_of


class Role(NamedTuple):
    """How a parameter is trained.

    Attributes
    ----------
    rate
        Its share of the learning rate.
    decays
        Whether the weight decay acts on it.
    early
        Whether it is held in the first epochs.
    """

    rate: float = 1.0
    decays: bool = True
    early: bool = False


@dataclass
class _Depths:
    """The layers of one network, counted from its input: those with a matrix or a kernel, and what follows each."""

    of: dict[str, int]
    layers: int = 0
    last: str = ""


def roles_of(network: TrainableMembers, config: TrainingConfig) -> dict[nn.Parameter, Role]:
    """Return the role of each parameter.

    Norms and biases are what has one axis in a network by itself, as timm takes them. An aggregation above local CNNs
    is above all their layers: it is never held and learns at the full rate.
    """
    roles: dict[nn.Parameter, Role] = {}
    for n, slots in enumerate(slots_of(network)):
        names = [name for name in network.member_state(n) if name in slots]
        depths = _depths(names, slots)
        for name in names:
            part = depths[_network(name)]
            above = 0 if name.startswith("aggregation.") else part.layers - part.of[name]
            slot = slots[name]
            decays = config.decay == "all" or slot.of(slot.parameter).ndim > 1
            roles.setdefault(slot.parameter, Role(config.layer_decay**above, decays, config.freeze > 0 and above > 0))
    return roles


def _depths(names: list[str], slots: dict[str, Slot]) -> dict[str, _Depths]:
    found: dict[str, _Depths] = {}
    for name in names:
        part = found.setdefault(_network(name), _Depths({}, -1))
        slot, layer = slots[name], name.rpartition(".")[0]
        if slot.of(slot.parameter).ndim > 1 and layer != part.last:
            part.layers, part.last = part.layers + 1, layer
        part.of[name] = max(part.layers, 0)
    return found


def _network(name: str) -> str:
    """Return to which network of a whole model a name belongs.

    >>> _network("locals.3.features.0.weight"), _network("features.0.weight")
    ('locals.3', '')
    """
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "locals" and len(parts) > 2 and parts[1].isdigit() else ""

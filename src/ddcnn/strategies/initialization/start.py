"""`Initialization`: what is known of a way to begin; `Start`: what it found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddcnn.errors import ConfigError
from ddcnn.planning import Setup, Work
from ddcnn.training import History, StageTimer

if TYPE_CHECKING:
    from ddcnn.strategies.strategy import StrategyContext

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """Local CNNs that were trained before, by another run.

    Attributes
    ----------
    states
        Complete, by the index of their subdomain; of a missing one there is none.
    stage, history
        Of their training there.
    """

    states: Mapping[int, State]
    stage: StageTimer
    history: History


@dataclass(frozen=True)
class Start:
    """Parameters to begin with, and what it took to find them.

    Attributes
    ----------
    local
        Complete states of local CNNs by the index of their subdomain; those that are not there begin at random.
    whole
        The same of the global CNN; None: it begins at random.
    stages, histories
        Of the trainings before.
    trained
        Local CNNs that are not trained any more; None: they are.
    """

    local: Mapping[int, State] = field(default_factory=dict)
    whole: State | None = None
    stages: Sequence[StageTimer] = ()
    histories: Mapping[str, History] = field(default_factory=dict)
    trained: Trained | None = None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What checkpoints of a training that begins here depend on: nothing, if it begins at random."""
        local = self.local if self.trained is None else self.trained.states
        if not local and self.whole is None:
            return {}
        digest = hashlib.sha256()
        for n, state in [*local.items(), (-1, self.whole or {})]:
            for name, value in sorted(state.items()):
                digest.update(f"{n}/{name}".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return {"start": digest.hexdigest()}

    def put(self, network: Any, indices: Sequence[int]) -> None:
        """Give local CNNs, which belong to these subdomains, what they begin with."""
        for position, n in enumerate(indices):
            if n in self.local:
                network.load_member_state(position, self.local[n])


@dataclass(frozen=True)
class Initialization:
    """What is known of a way to begin.

    Attributes
    ----------
    run
        Finds the parameters.
    label, sentence
        What readers call it, and what it does.
    stages
        Its stages of training, by name, and what readers call them.
    check
        Raises a `DdcnnError` if it cannot be used for a setup, before anything is trained or written.
    works
        Describes its trainings before they begin, in order.
    """

    run: Callable[[StrategyContext], Start]
    label: str
    sentence: str
    stages: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Setup], None] = lambda _setup: None
    works: Callable[[Setup], list[Work]] = lambda _setup: []


def complete(module: nn.Module, state: State) -> dict[str, Tensor]:
    """Return the state of a network with some of it replaced, in its own types."""
    own = module.state_dict()
    return {name: state[name].to(value.dtype) if name in state else value for name, value in own.items()}


def check_alone(setup: Setup) -> None:
    """Raise a `ConfigError` if the run is spread over ranks, of which only one would train what comes before."""
    if not setup.ranks.alone:
        raise ConfigError(
            f"init.name = {setup.config.init.way} trains before the coherent model and is not spread over ranks; "
            "train local CNNs with it in a run of their own, and give that as --weights RUN"
        )

"""`WeightAverage`: a running mean of the parameters, validated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ddcnn.training.members import TrainableMembers, slots_of

_MEASURED = 32  # batches; with the usual momentum of batch norm, 3 % of what was there before is left


class WeightAverage:
    """An exponential moving average of the parameters of all members (Polyak and Juditsky 1992).

    Parameters
    ----------
    network
        Whose parameters.
    decay
        What a step leaves of the mean as it was; at the start less, so that the first steps are soon forgotten.
    """

    def __init__(self, network: TrainableMembers, decay: float) -> None:
        self.network, self.decay, self.steps = network, decay, 0
        self._parameters = [p for p, _ in network.per_parameter(torch.ones(network.members))]
        self._means = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take note of the parameters after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, parameter in zip(self._means, self._parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the network has the mean; afterwards parameters and buffers are as before."""
        buffers = list(cast(nn.Module, self.network).buffers())
        before = [value.detach().clone() for value in (*self._parameters, *buffers)]
        with torch.no_grad():
            for parameter, mean in zip(self._parameters, self._means, strict=True):
                parameter.copy_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                for value, old in zip((*self._parameters, *buffers), before, strict=True):
                    value.copy_(old)

    def states(self) -> list[dict[str, Tensor]]:
        """Return views of the mean of each member, under the names of its parameters, and the number of steps."""
        means = dict(zip(self._parameters, self._means, strict=True))
        steps = torch.tensor(self.steps)
        return [
            {"steps": steps} | {name: slot.of(means[slot.parameter]) for name, slot in slots.items()}
            for slots in slots_of(self.network)
        ]

    def load_states(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Copy the means of all members; what they hold of parameters that are not here is left out."""
        for mine, state in zip(self.states(), states, strict=True):
            self.steps = int(state["steps"])
            for name in mine.keys() - {"steps"}:
                mine[name].copy_(state[name])

    def subset(self, network: TrainableMembers, members: Sequence[int]) -> WeightAverage:
        """Return the mean of a network that holds some of the members."""
        part, states = WeightAverage(network, self.decay), self.states()
        part.load_states([states[n] for n in members])
        return part


def has_running_statistics(network: TrainableMembers) -> bool:
    """Tell whether there is batch norm whose statistics belong to the parameters that they were measured with."""
    return any("running_mean" in name for name, _ in cast(nn.Module, network).named_buffers())


def batches_to_measure(steps: int) -> int:
    """Return on how many batches the statistics of batch norm are measured anew, of so many in an epoch."""
    return min(steps, _MEASURED)

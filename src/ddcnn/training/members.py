"""What can be trained: M independent networks at once, or one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ddcnn.data.batch import Inputs


class Shown(NamedTuple):
    """Scores, and what else a network shows of its samples while it is trained; it joins the extras of the batch.

    Attributes
    ----------
    scores
        (B, M, K).
    extras
        (B, ...) by name.
    """

    scores: Tensor
    extras: Mapping[str, Tensor]


@runtime_checkable
class TrainableMembers(Protocol):
    """A module with M independent members; `ddcnn.LocalCNNs` is one."""

    @property
    def members(self) -> int:
        """M."""

    def __call__(self, x: Inputs) -> Tensor | Shown:
        """Return scores (B, M, K); while it is trained, further scores may follow, for its objective.

        Behind those of the batch there may be scores of no sample, which are not used. What else the objective is to
        see is `Shown`.
        """

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of member n."""

    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy a state into member n."""

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with its (M,) values, in a shape that broadcasts against it."""

    def subset(self, members: Sequence[int]) -> TrainableMembers:
        """Return copies of some members, in that order."""

    def name(self, n: int) -> str:
        """Return what messages call member n."""


class Single(nn.Module):
    """One network, (B, ...) -> (B, K), as the only member."""

    members = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Inputs) -> Tensor:
        """Return (B, 1, K)."""
        return cast(Tensor, self.network(x)).unsqueeze(1)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of the network."""
        assert n == 0
        return self.network.state_dict()

    def load_member_state(self, n: int, state: Mapping[str, Tensor]) -> None:
        """Copy a state into the network."""
        assert n == 0
        self.network.load_state_dict(state)

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the one value."""
        return [(p, values[0]) for p in self.network.parameters()]

    def subset(self, members: Sequence[int]) -> Single:
        """Return the network itself: there is no smaller part."""
        assert list(members) == [0]
        return self

    def name(self, n: int) -> str:
        """Return what messages call it."""
        assert n == 0
        return "the network"


class Slot(NamedTuple):
    """Where the parameter of one member lies: it is a whole parameter, or one row of a stacked one."""

    parameter: nn.Parameter
    row: int | None

    def of(self, tensor: Tensor) -> Tensor:
        """Return the part of a tensor that is laid out as the parameter is, as a view."""
        return tensor if self.row is None else tensor[self.row]


def slots_of(network: TrainableMembers) -> list[dict[str, Slot]]:
    """Return where the parameters of each member lie, under the names of the member's state.

    It makes no difference to the caller whether members, or the local CNNs within one, are stacked or run in turn.
    """
    names: dict[object, tuple[int, str]] = {}
    for n in range(network.members):
        for name, value in network.member_state(n).items():
            names.setdefault(_memory(value), (n, name))  # of a shared parameter, the first name
    slots: list[dict[str, Slot]] = [{} for _ in range(network.members)]
    for parameter, _ in network.per_parameter(torch.arange(network.members)):
        rows = [None] if _memory(parameter) in names else range(len(parameter))
        for slot in (Slot(parameter, row) for row in rows):
            n, name = names[_memory(slot.of(parameter))]
            slots[n][name] = slot
    return slots


def _memory(tensor: Tensor) -> object:
    return tensor.data_ptr(), tensor.shape

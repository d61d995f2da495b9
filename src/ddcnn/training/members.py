"""What the training loop can train: M independent networks at once, or one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ddcnn.decomposition import Subimages


@runtime_checkable
class TrainableMembers(Protocol):
    """A module with M independent members; `ddcnn.fusion.LocalCNNs` is one."""

    @property
    def members(self) -> int:
        """M."""

    def __call__(self, x: Tensor | Subimages) -> Tensor:
        """(B, ...) -> (B, M, K); while training perhaps more than M scores, see `loss_weights`.

        Behind those of the batch there may be scores of no sample, which are not used.
        """

    def loss_weights(self, at: float) -> Tensor:
        """Return the weights of the losses of all scores that a call returns while training, the M members' first.

        ``at`` says how much of the training is over, 0..1.
        """

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of member n."""

    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy a state into member n."""

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with its part of (M,) values, in a shape that broadcasts against it."""

    def reduce_gradients(self) -> None:
        """Add to the gradients, after backward, what others have computed of them."""

    def global_grad_norm(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> Tensor:
        """Return the norm (M,) of each member's gradient from those of its parts, (P, M), one per parameter.

        A trainee that is spread over processes counts the parts that the others have.
        """

    def broadcast_metrics(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what has been measured after an epoch, the same in all processes that have a part of the trainee.

        What is decided from it is then decided by all of them.
        """

    def subset(self, members: Sequence[int]) -> TrainableMembers:
        """Return copies of some members, in that order, as a trainee of their own."""

    def name(self, n: int) -> str:
        """Return what messages call member n."""


class Single(nn.Module):
    """One network, (B, ...) -> (B, K), as a trainee with one member."""

    members = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor | Subimages) -> Tensor:
        """Return (B, 1, K)."""
        return cast(Tensor, self.network(x)).unsqueeze(1)

    def loss_weights(self, at: float) -> Tensor:  # noqa: ARG002 - the same at any time
        """Return 1: the network has one loss."""
        return torch.ones(1)

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

    def reduce_gradients(self) -> None:
        """Do nothing: they are complete."""

    def global_grad_norm(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> Tensor:  # noqa: ARG002 - all is here
        """Return the norm of the gradient from those of its parts."""
        return cast(Tensor, torch.linalg.vector_norm(norms, dim=0))

    def broadcast_metrics(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the values: there is nobody else."""
        return values

    def subset(self, members: Sequence[int]) -> Single:
        """Return the network itself: there is no smaller part."""
        assert list(members) == [0]
        return self

    def name(self, n: int) -> str:
        """Return what messages call it."""
        assert n == 0
        return "the network"


class Part(NamedTuple):
    """Where the parameter of one member lies: it is a whole parameter, or one row of a stacked one."""

    parameter: nn.Parameter
    row: int | None

    def of(self, tensor: Tensor) -> Tensor:
        """Return the part of a tensor that is laid out as the parameter is, as a view."""
        return tensor if self.row is None else tensor[self.row]


def parts_of(trainee: TrainableMembers) -> list[dict[str, Part]]:
    """Return where the parameters of each member lie, under the names of the member's state.

    It makes no difference to the caller whether members, or the local CNNs within one, are stacked or run in turn.
    """
    names: dict[object, tuple[int, str]] = {}
    for n in range(trainee.members):
        for name, value in trainee.member_state(n).items():
            names.setdefault(_place(value), (n, name))  # of a shared parameter, the first name
    parts: list[dict[str, Part]] = [{} for _ in range(trainee.members)]
    for parameter, _ in trainee.per_parameter(torch.arange(trainee.members)):
        rows = [None] if _place(parameter) in names else range(len(parameter))
        for part in (Part(parameter, row) for row in rows):
            n, name = names[_place(part.of(parameter))]
            parts[n][name] = part
    return parts


def _place(tensor: Tensor) -> object:
    return tensor.data_ptr(), tensor.shape

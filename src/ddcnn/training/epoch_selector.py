"""What is watched epoch by epoch, for each member by itself: its best epoch, when to stop, whether it diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.training.members import TrainableMembers

_NUMBERS = ("active", "best_epochs", "diverged", "_best", "_improved", "_lowest", "_waited")


class EpochSelector:
    """Keeps the parameters of each member's selected epoch, and decides who goes on.

    Attributes
    ----------
    active
        The members that are still trained.
    best_epochs
        Per member, the epoch (from 1) whose parameters are kept; 0: those it began with.
    diverged
        Per member, the epoch in which its loss became NaN or infinite; None: never.
    factors
        (M,) what the plateaus of each member's validation loss make of its learning rate.
    """

    def __init__(self, trainee: TrainableMembers, config: TrainingConfig) -> None:
        members = trainee.members
        self.config = config
        self.active = list(range(members))
        self.best_epochs = [0] * members
        self.diverged: list[int | None] = [None] * members
        self.factors = torch.ones(members, dtype=torch.float64)
        self._states = [_copy(trainee, n) for n in range(members)]
        self._best: list[Sequence[float]] = [(-1.0, 0.0)] * members
        self._improved = [0] * members
        self._lowest = [float("inf")] * members
        self._waited = [0] * members

    def observe(
        self,
        epoch: int,
        trainee: TrainableMembers,
        train_loss: Float[Tensor, "M"],
        loss: Float[Tensor, "M"],
        accuracy: Float[Tensor, "M"],
    ) -> list[int]:
        """Take note of an epoch of the active members, which the trainee holds in their order.

        Returns
        -------
        stay
            Positions in the trainee of those that go on.
        """
        stay = []
        finite = (train_loss.cpu().isfinite() & loss.cpu().isfinite()).tolist()
        for position, n in enumerate(self.active):
            if not finite[position]:
                self.diverged[n] = epoch
                continue
            self._select(n, epoch, trainee, position, (float(accuracy[position]), -float(loss[position])))
            self._watch_plateau(n, float(loss[position]))
            if self.config.patience is None or epoch - self._improved[n] < self.config.patience:
                stay.append(position)
        self.active = [self.active[position] for position in stay]
        return stay

    def restore(self, trainee: TrainableMembers) -> None:
        """Give each member of the whole trainee the parameters that were kept."""
        for n, state in enumerate(self._states):
            trainee.load_member_state(n, state)

    def numbers(self) -> dict[str, Any]:
        """Return what it knows, but for the kept parameters, as JSON takes it."""
        return {name: getattr(self, name) for name in _NUMBERS} | {"factors": self.factors.tolist()}

    def kept(self) -> dict[str, Tensor]:
        """Return the kept parameters, as ``<member>/<name>``."""
        return {f"{n}/{name}": value for n, state in enumerate(self._states) for name, value in state.items()}

    def load(self, numbers: Mapping[str, Any], kept: Mapping[str, Tensor]) -> None:
        """Take over what another watch of the same training knew."""
        for name in _NUMBERS:
            setattr(self, name, numbers[name])
        self.factors = torch.tensor(numbers["factors"], dtype=torch.float64)
        for n, state in enumerate(self._states):
            for name, value in state.items():
                value.copy_(kept[f"{n}/{name}"])

    def _select(
        self, n: int, epoch: int, trainee: TrainableMembers, position: int, quality: tuple[float, float]
    ) -> None:
        better = quality > tuple(self._best[n])
        if better:
            self._best[n], self._improved[n] = quality, epoch
        if better or self.config.select == "last":
            self._states[n], self.best_epochs[n] = _copy(trainee, position), epoch

    def _watch_plateau(self, n: int, loss: float) -> None:
        if self.config.schedule != "plateau":
            return
        if loss < self._lowest[n] - 1e-4:
            self._lowest[n], self._waited[n] = loss, 0
            return
        self._waited[n] += 1
        if self._waited[n] >= self.config.plateau_patience:
            self.factors[n] *= self.config.gamma
            self._waited[n] = 0


def _copy(trainee: TrainableMembers, n: int) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainee.member_state(n).items()}

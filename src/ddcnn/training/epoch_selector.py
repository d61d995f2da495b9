"""Selects the best epoch of each member, and stops it when it no longer improves, diverges, or has no loss left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.training.members import TrainableMembers

_STILL = 10  # epochs with a training loss of exactly 0, after which a member has no gradient that could change it


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

    def __init__(self, network: TrainableMembers, config: TrainingConfig) -> None:
        members = network.members
        self.config = config
        self.active = list(range(members))
        self.best_epochs = [0] * members
        self.diverged: list[int | None] = [None] * members
        self.factors = torch.ones(members, dtype=torch.float64)
        self._states = [_copy(network, n) for n in range(members)]
        self._best: list[Sequence[float]] = [(-1.0, 0.0)] * members
        self._improved = [0] * members
        self._lowest = [float("inf")] * members
        self._waited = [0] * members
        self._still = [0] * members  # epochs in a row in which there was nothing left to learn

    def observe(
        self,
        epoch: int,
        network: TrainableMembers,
        train_loss: Float[Tensor, "M"],
        loss: Float[Tensor, "M"],
        accuracy: Float[Tensor, "M"],
    ) -> list[int]:
        """Take note of an epoch of the active members, which the network holds in their order.

        Returns
        -------
        stay
            Positions in the network of those that go on.
        """
        stay = []
        finite = (train_loss.cpu().isfinite() & loss.cpu().isfinite()).tolist()
        for position, n in enumerate(self.active):
            if not finite[position]:
                self.diverged[n] = epoch
                continue
            self._select(n, epoch, network, position, (float(accuracy[position]), -float(loss[position])))
            self._watch_plateau(n, float(loss[position]))
            self._still[n] = self._still[n] + 1 if float(train_loss[position]) == 0 else 0
            patient = self.config.patience is None or epoch - self._improved[n] < self.config.patience
            if patient and self._still[n] < _STILL:
                stay.append(position)
        self.active = [self.active[position] for position in stay]
        return stay

    def restore(self, network: TrainableMembers) -> None:
        """Give each member of the whole network the parameters that were kept."""
        for n, state in enumerate(self._states):
            network.load_member_state(n, state)

    def numbers(self) -> dict[str, Any]:
        """Return its state, but for the kept parameters, as JSON takes it."""
        return {
            "active": self.active,
            "best_epochs": self.best_epochs,
            "diverged": self.diverged,
            "factors": self.factors.tolist(),
            "best": self._best,
            "improved": self._improved,
            "lowest": self._lowest,
            "waited": self._waited,
            "still": self._still,
        }

    def kept(self) -> dict[str, Tensor]:
        """Return the kept parameters, as ``<member>/<name>``."""
        return {f"{n}/{name}": value for n, state in enumerate(self._states) for name, value in state.items()}

    def load(self, numbers: Mapping[str, Any], kept: Mapping[str, Tensor]) -> None:
        """Take over the state of another selector of the same training: what `numbers` and `kept` returned."""
        self.active, self.best_epochs, self.diverged = (numbers[k] for k in ("active", "best_epochs", "diverged"))
        self.factors = torch.tensor(numbers["factors"], dtype=torch.float64)
        self._best, self._improved = numbers["best"], numbers["improved"]
        self._lowest, self._waited = numbers["lowest"], numbers["waited"]
        self._still = numbers["still"]
        for n, state in enumerate(self._states):
            for name, value in state.items():
                value.copy_(kept[f"{n}/{name}"])

    def _select(
        self, n: int, epoch: int, network: TrainableMembers, position: int, quality: tuple[float, float]
    ) -> None:
        better = quality > tuple(self._best[n])
        if better:
            self._best[n], self._improved[n] = quality, epoch
        if better or self.config.select == "last":
            self._states[n], self.best_epochs[n] = _copy(network, position), epoch

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


def _copy(network: TrainableMembers, n: int) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.member_state(n).items()}

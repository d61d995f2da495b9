"""One training step: forward, backward and optimiser, for M members at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.data.batch import Batch
from ddcnn.training.distribution import Distribution
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import Shown, TrainableMembers
from ddcnn.training.objective import At, CrossEntropy, Loss, Objective
from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.replay import Replay
from ddcnn.training.sharpness import climbed
from ddcnn.training.weight_average import WeightAverage


@dataclass(frozen=True)
class Step:
    """Forward, backward and optimiser, for M members at once.

    Attributes
    ----------
    radius
        Of sharpness-aware minimisation; None: the gradient is that where the parameters are.
    average
        A running mean of the parameters; None: none is kept.
    replay
        Runs forward and backward pass as a CUDA graph once it can; None: the code runs.
    """

    network: TrainableMembers
    optimizer: MemberOptimizer
    precision: PrecisionName
    objective: Objective = field(default_factory=CrossEntropy)
    distribution: Distribution = field(default_factory=Distribution)
    radius: float | None = None
    average: WeightAverage | None = None
    replay: Replay | None = None

    def __call__(
        self, batch: Batch, *, schedule: float = 1.0, at: float = 0.0, held: bool = False
    ) -> tuple[Float[Tensor, "M"], Int64[Tensor, "M"]]:
        """Return the loss of each member, and how many of the batch it had right before the update.

        ``schedule`` multiplies the learning rates; ``at`` says how much of the training is over, 0..1; early layers may
        be ``held``.
        """
        loss, correct = self._gradients(batch, at)
        if self.radius is not None:
            with climbed(self.network, self.optimizer.stacks, self.distribution, self.radius):
                self._gradients(batch, at)
        self.optimizer.step(schedule, held=held)
        if self.average is not None:
            self.average.update()
        return loss, correct

    def subset(self, members: Sequence[int]) -> Step:
        """Return a step of some of the members alone, which go on as they would have; the others cost no time."""
        network = self.network.subset(members)
        optimizer = self.optimizer.subset(network, members)
        average = None if self.average is None else self.average.subset(network, members)
        replay = None if self.replay is None else self.replay.subset(network)
        return replace(self, network=network, optimizer=optimizer, average=average, replay=replay)

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return scores, and the batch with what else the network shows of it."""
        with autocast(self.precision, batch.inputs.device):
            found = self.distribution.forward(self.network, batch.inputs)
        if isinstance(found, Shown):
            return found.scores[: len(batch)], replace(batch, extras={**batch.extras, **found.extras})
        return found[: len(batch)], batch

    def loss(self, batch: Batch, at: At = 0.0) -> tuple[Float[Tensor, "B M K"], Loss]:
        """Return the scores of a batch, and what is minimised."""
        scores, batch = self.forward(batch)
        return scores, self.objective(scores, batch, cast(float, at))  # a tensor for those alone that are replayable

    def _gradients(self, batch: Batch, at: float) -> tuple[Tensor, Tensor]:
        if self.replay is None:
            return self._computed(batch, at)
        return self.replay(self._computed, batch, at)

    def _computed(self, batch: Batch, at: At) -> tuple[Tensor, Tensor]:
        scores, loss = self.loss(batch, at)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.distribution.reduce_gradients(self.network)
        decided = scores.detach()[:, : self.network.members].argmax(2)
        return loss.members.detach(), (decided == batch.targets.unsqueeze(1)).sum(0)

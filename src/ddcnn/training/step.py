"""One training step: forward, backward and optimiser, for M members at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.data.batch import Batch
from ddcnn.training.distribution import Distribution
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import TrainableMembers
from ddcnn.training.objective import CrossEntropy, Loss, Objective
from ddcnn.training.precision import PrecisionName, autocast


@dataclass(frozen=True)
class Step:
    """Forward, backward and optimiser, for M members at once."""

    network: TrainableMembers
    optimizer: MemberOptimizer
    precision: PrecisionName
    objective: Objective = field(default_factory=CrossEntropy)
    distribution: Distribution = field(default_factory=Distribution)

    def __call__(
        self, batch: Batch, *, schedule: float = 1.0, at: float = 0.0
    ) -> tuple[Float[Tensor, "M"], Int64[Tensor, "M"]]:
        """Return the loss of each member, and how many of the batch it had right before the update.

        ``schedule`` multiplies the learning rates; ``at`` says how much of the training is over, 0..1.
        """
        scores, loss = self.forward(batch, at)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.distribution.reduce_gradients(self.network)
        self.optimizer.step(schedule)
        decided = scores.detach()[:, : self.network.members].argmax(2)
        return loss.members.detach(), (decided == batch.targets.unsqueeze(1)).sum(0)

    def forward(self, batch: Batch, at: float = 0.0) -> tuple[Float[Tensor, "B M K"], Loss]:
        """Return the scores of a batch, and what is minimised."""
        with autocast(self.precision, batch.inputs.device):
            scores = self.distribution.forward(self.network, batch.inputs)[: len(batch)]
        return scores, self.objective(scores, batch, at)

    def subset(self, members: Sequence[int]) -> Step:
        """Return a step of some of the members alone, which go on as they would have; the others cost no time."""
        network = self.network.subset(members)
        return replace(self, network=network, optimizer=self.optimizer.subset(network, members))


@contextmanager
def deterministic_layers(device: torch.device, seed: int) -> Iterator[None]:
    """Let layers that draw, such as dropout, draw from this seed, and leave the global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

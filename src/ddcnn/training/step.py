"""One training step, and the loss that makes M networks independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.decomposition import Subimages
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.members import TrainableMembers
from ddcnn.training.precision import PrecisionName, autocast


def member_losses(
    scores: Float[Tensor, "B M K"],
    labels: Int64[Tensor, "B"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, "K"] | None = None,
) -> Float[Tensor, "M"]:
    """Return the mean cross-entropy of each member over the batch, computed in float32 at least.

    Their sum is what is minimised: its gradient with respect to one member's parameters is that member's own.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = None if class_weights is None else class_weights.to(scores)
    targets = labels.unsqueeze(1).expand(-1, scores.shape[1])
    losses = F.cross_entropy(
        scores.transpose(1, 2), targets, weights, reduction="none", label_smoothing=label_smoothing
    )
    return losses.mean(0) if weights is None else losses.sum(0) / weights[labels].sum()


@dataclass(frozen=True)
class Step:
    """Forward, backward and optimiser, for M members at once."""

    trainee: TrainableMembers
    optimizer: MemberOptimizer
    precision: PrecisionName
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(
        self, inputs: Tensor | Subimages, labels: Tensor, *, schedule: float = 1.0, at: float = 0.0
    ) -> tuple[Float[Tensor, "M"], Int64[Tensor, "M"]]:
        """Return the loss of each member, and how many of the batch it had right before the update.

        ``schedule`` multiplies the learning rates; ``at`` says how much of the training is over, 0..1.
        """
        with autocast(self.precision, inputs.device):
            scores = self.trainee(inputs)[: len(labels)]
        losses = member_losses(scores, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights)
        self.optimizer.zero_grad()
        weights = self.trainee.loss_weights(at).to(losses.device, non_blocking=True)
        (losses * weights).sum().backward()
        self.trainee.reduce_gradients()
        self.optimizer.step(schedule)
        correct = (scores.detach().argmax(2) == labels.unsqueeze(1)).sum(0)
        return losses.detach()[: self.trainee.members], correct[: self.trainee.members]

    def subset(self, members: Sequence[int]) -> Step:
        """Return a step of some of the members alone, which go on as they would have; the others cost no time."""
        trainee = self.trainee.subset(members)
        return replace(self, trainee=trainee, optimizer=self.optimizer.subset(trainee, members))


@contextmanager
def deterministic_layers(device: torch.device, seed: int) -> Iterator[None]:
    """Let layers that draw, such as dropout, draw from this seed, and leave the global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def balanced_weights(labels: Int64[Tensor, "n"], classes: int) -> Float[Tensor, "K"]:
    """Return class weights n / (K * n_k), as scikit-learn's "balanced".

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return len(labels) / (classes * counts.clamp_min(1))

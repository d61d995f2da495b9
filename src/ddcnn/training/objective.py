"""Objectives: scores and a batch -> one loss per member, and what is minimised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import OTHERS, SHARES, WEIGHTS, Batch

At = float | Tensor
"""How much of a training is over, 0..1; where a step is replayed, a tensor without axes."""


class Loss(NamedTuple):
    """What an objective returns.

    Attributes
    ----------
    members
        (M,) losses, reported, and watched for divergence. Their sum is minimised: its gradient with respect to the
        parameters of one member is that member's own.
    further
        What is minimised beside them; None: nothing.
    """

    members: Tensor
    further: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.members.sum() if self.further is None else self.members.sum() + self.further


@runtime_checkable
class Objective(Protocol):
    """What a training minimises.

    With an attribute ``replayable = True`` it says that it does the same in every step: operators of PyTorch on the
    scores, the batch and ``at``, which then may be a tensor. So a GPU may replay it: see `ddcnn.training.replay`.
    """

    def __call__(self, scores: Float[Tensor, "B M K"], batch: Batch, at: float) -> Loss:
        """Return the losses for a batch.

        Parameters
        ----------
        scores
            (B, M, K); of a network that shows further scores while it is trained (`WholeNetwork`), these follow.
        batch
            Targets, sample numbers, and whatever else a source adds.
        at
            How much of the training is over, 0..1.
        """


@dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy of each member over the batch.

    Attributes
    ----------
    label_smoothing
        Share of the target that is spread over all classes, 0..1.
    class_weights
        (K,) weights of the samples by class; the mean is weighted, too, as it is by weights of the samples themselves.
    """

    label_smoothing: float = 0.0
    class_weights: Float[Tensor, "K"] | None = None
    replayable: ClassVar[bool] = True

    def __call__(self, scores: Float[Tensor, "B M K"], batch: Batch, at: At) -> Loss:  # noqa: ARG002 - always the same
        """Return the loss of each member."""
        return Loss(self.losses(scores, batch))

    def losses(self, scores: Float[Tensor, "B M K"], batch: Batch) -> Float[Tensor, "M"]:
        """Return the losses, computed in float32 at least."""
        return member_losses(
            scores,
            batch.targets,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
            sample_weights=batch.extras.get(WEIGHTS),
            mixed=(batch.extras[OTHERS], batch.extras[SHARES]) if SHARES in batch.extras else None,
        )


@dataclass(frozen=True)
class FadingLocalLosses:
    """The global loss of a `WholeNetwork`, and losses of its local CNNs that fade out in the course of the training.

    Deep supervision (Lee et al. 2015).

    Attributes
    ----------
    weight
        Of the sum of the local losses at the start; it falls linearly to 0.
    cross_entropy
        Of global and local scores.
    """

    weight: float
    cross_entropy: CrossEntropy = field(default_factory=CrossEntropy)
    replayable: ClassVar[bool] = True

    def __call__(self, scores: Float[Tensor, "B M K"], batch: Batch, at: At) -> Loss:
        """Return the global loss, and the local ones as what is minimised beside it."""
        losses = self.cross_entropy.losses(scores, batch)
        weight = self.weight * (1 - at)
        if isinstance(weight, Tensor):
            weight = weight.to(losses.dtype)  # as a number is rounded
        return Loss(losses[:1], weight * losses[1:].sum())


def cross_entropy_of(config: TrainingConfig, labels: Int64[Tensor, " n"], classes: int) -> CrossEntropy:
    """Return the cross-entropy that a configuration describes, for training samples with these labels."""
    weights = balanced_weights(labels, classes) if config.class_weights == "balanced" else None
    return CrossEntropy(config.label_smoothing, weights)


def member_losses(
    scores: Float[Tensor, "B M K"],
    labels: Int64[Tensor, "B"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, "K"] | None = None,
    sample_weights: Float[Tensor, "B"] | None = None,
    mixed: tuple[Int64[Tensor, "B"], Float[Tensor, "B"]] | None = None,
) -> Float[Tensor, "M"]:
    """Return the mean cross-entropy of each member over the batch, weighted if there are weights, in float32 at least.

    Of a batch whose weights are all 0, it is 0. Where images are ``mixed``, these are the labels of the others, and
    their shares.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = None if class_weights is None else class_weights.to(scores)

    def of(labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (B, M), and how much they count (B, 1)."""
        targets = labels.unsqueeze(1).expand(-1, scores.shape[1])
        losses = F.cross_entropy(
            scores.transpose(1, 2), targets, weights, reduction="none", label_smoothing=label_smoothing
        )
        return losses, torch.ones_like(losses[:, :1]) if weights is None else weights[labels].unsqueeze(1)

    losses, counts = of(labels)
    if mixed is not None:
        share = mixed[1].to(scores).unsqueeze(1)
        losses, counts = (torch.lerp(a, b, share) for a, b in zip((losses, counts), of(mixed[0]), strict=True))
    if sample_weights is None:
        return losses.mean(0) if weights is None else losses.sum(0) / counts.sum()
    own = sample_weights.to(scores).unsqueeze(1)
    return (losses * own).sum(0) / (own * counts).sum().clamp_min(torch.finfo(scores.dtype).tiny)


def balanced_weights(labels: Int64[Tensor, "n"], classes: int) -> Float[Tensor, "K"]:
    """Return class weights n / (K * n_k), as scikit-learn's "balanced".

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return len(labels) / (classes * counts.clamp_min(1))

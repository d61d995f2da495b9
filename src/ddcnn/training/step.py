"""One training step, and the loss that makes M networks independent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.training.precision import PrecisionName, autocast
from ddcnn.training.trainee import Trainee


def member_losses(
    scores: Float[Tensor, "B M K"],
    labels: Int64[Tensor, "B"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, "K"] | None = None,
) -> Float[Tensor, "M"]:
    """Return the mean cross-entropy of each member over the batch.

    Their sum is what is minimised: its gradient with respect to one member's parameters is that member's own.
    """
    members = scores.shape[1]
    targets = labels.unsqueeze(1).expand(-1, members)
    losses = F.cross_entropy(
        scores.float().transpose(1, 2), targets, class_weights, reduction="none", label_smoothing=label_smoothing
    )
    if class_weights is None:
        return losses.mean(0)
    return losses.sum(0) / class_weights[labels].sum()


@dataclass
class Step:
    """Forward, backward and optimiser, for M members at once.

    ``factors`` (M,) multiply the learning rate of each member; the update of every element-wise optimiser here is
    linear in it, so that members with different rates are updated by a part of one common update.
    """

    trainee: Trainee
    optimizer: torch.optim.Optimizer
    precision: PrecisionName
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(
        self, inputs: Tensor, labels: Tensor, *, lr: float, factors: Tensor, at: float = 0.0
    ) -> tuple[Float[Tensor, "M"], Int64[Tensor, "M"]]:
        """Return the loss of each member, and how many of the batch it had right before the update."""
        with autocast(self.precision, inputs.device):
            scores = self.trainee(inputs)
        losses = member_losses(scores, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        (losses * self.trainee.loss_weights(at).to(losses.device)).sum().backward()
        self._update(lr, factors)
        correct = (scores.detach().argmax(2) == labels.unsqueeze(1)).sum(0)
        return losses.detach()[: self.trainee.members], correct[: self.trainee.members]

    def _update(self, lr: float, factors: Tensor) -> None:
        common = float(factors.max())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * common
        if float(factors.min()) == common:
            self.optimizer.step()
            return
        pairs = self.trainee.per_parameter(factors / common)
        before = [p.detach().clone() for p, _ in pairs]
        self.optimizer.step()
        with torch.no_grad():
            for (parameter, part), old in zip(pairs, before, strict=True):
                parameter.copy_(torch.lerp(old, parameter, part.to(old).expand_as(old)))


def balanced_weights(labels: Int64[Tensor, "n"], classes: int) -> Float[Tensor, "K"]:
    """Return class weights n / (K * n_k), as scikit-learn's "balanced".

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return len(labels) / (classes * counts.clamp_min(1))


def parameters_of(trainee: Trainee) -> list[nn.Parameter]:
    """Return all parameters of a trainee."""
    return [p for p, _ in trainee.per_parameter(torch.ones(trainee.members))]

"""Scores, loss and accuracy of networks on samples."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.aggregation import LocalOutputs
from ddcnn.data.batches import Batches
from ddcnn.decomposition import Subimages
from ddcnn.models import LocalCNNs
from ddcnn.training.distribution import Distribution
from ddcnn.training.members import TrainableMembers
from ddcnn.training.objective import member_losses
from ddcnn.training.precision import PrecisionName, autocast


@torch.no_grad()
def predict_scores(
    network: TrainableMembers,
    batches: Batches,
    *,
    precision: PrecisionName = "float32",
    distribution: Distribution | None = None,
) -> Float[Tensor, "n M K"]:
    """Return the scores of all samples in order, in float32, on the CPU."""
    distribution = distribution or Distribution()
    distribution.before_evaluation(network)
    cast(nn.Module, network).eval()
    scores = []
    for batch in batches.in_order():
        with autocast(precision, batch.inputs.device):
            found = distribution.forward(network, batch.inputs)
        assert isinstance(found, Tensor), "more than scores is shown in training only"
        scores.append(found[: len(batch)].float().cpu())
    return torch.cat(scores)


@torch.no_grad()
def predict_outputs(
    local_cnns: LocalCNNs, batches: Batches, *, features: bool, precision: PrecisionName = "float32"
) -> LocalOutputs:
    """Return the scores of local CNNs for all samples in order, in float32, on the CPU; and, if asked, features."""
    if not features:
        return LocalOutputs(predict_scores(local_cnns, batches, precision=precision))
    local_cnns.eval()
    found = []
    for batch in batches.in_order():
        assert isinstance(batch.inputs, Subimages)
        with autocast(precision, batch.inputs.device):
            parts = local_cnns.with_features(batch.inputs)
        found.append(LocalOutputs(*(part[: len(batch)].float().cpu() for part in parts)))
    return LocalOutputs.joined(found)


def evaluate(
    network: TrainableMembers,
    batches: Batches,
    *,
    precision: PrecisionName = "float32",
    distribution: Distribution | None = None,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"]]:
    """Return cross-entropy and accuracy (0..1) of each member."""
    scores = predict_scores(network, batches, precision=precision, distribution=distribution)
    labels = batches.labels[batches.indices.to(batches.device)].cpu()
    return member_losses(scores, labels), accuracy_of(scores, labels)


def accuracy_of(scores: Float[Tensor, "n M K"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "M"]:
    """Return the share of samples, 0..1, that each member has right."""
    return (scores.argmax(2) == labels.unsqueeze(1)).float().mean(0)

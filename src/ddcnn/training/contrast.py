"""Contrastive losses of pytorch-metric-learning, for each of M members by itself."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ddcnn.errors import ConfigError
from ddcnn.extras import needed

TEMPERATURE = 0.1


def contrast(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020) of each member.

    Where each label is there twice, it is the loss of SimCLR, NT-Xent (Chen et al. 2020).

    Parameters
    ----------
    embeddings, labels
        (B, M, D), and (B,): those with equal labels belong together.

    Returns
    -------
    losses
        (M,).
    """
    loss = contrast_of_library()
    return torch.stack([loss(part, labels) for part in embeddings.unbind(1)])


@functools.cache
def contrast_of_library() -> Any:
    """Return the loss of one member, (B, D) and (B,) -> ().

    Raises
    ------
    ConfigError
        The package is not there.
    """
    with needed("contrastive training needs pytorch-metric-learning", "contrast", ConfigError):
        from pytorch_metric_learning.losses import SupConLoss
    return SupConLoss(temperature=TEMPERATURE)

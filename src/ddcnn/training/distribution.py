"""`Distribution`: what a training exchanges with other processes; by itself, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ddcnn.data.batch import Inputs
from ddcnn.training.members import Shown, TrainableMembers


class Distribution:
    """One process that has it all. A network that is trained knows nothing of it."""

    def forward(self, network: TrainableMembers, inputs: Inputs) -> Tensor | Shown:
        """Return the scores of a network, and what else it shows."""
        return network(inputs)

    def reduce_gradients(self, network: TrainableMembers) -> None:
        """Add to the gradients, after backward, what others have computed of them."""

    def global_grad_norm(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> Tensor:  # noqa: ARG002 - all is here
        """Return the norm (M,) of each member's gradient from those of its parameters, (P, M)."""
        return cast(Tensor, torch.linalg.vector_norm(norms, dim=0))

    def broadcast_metrics(self, network: TrainableMembers, *values: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return what was measured after an epoch, the same in all processes: what follows from it is then the same."""
        return values

    def before_evaluation(self, network: TrainableMembers) -> None:
        """Make whatever differs between processes while a network is trained the same."""

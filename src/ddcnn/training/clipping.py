"""Clip the gradient of each of M members by its own norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ddcnn.training.distribution import Distribution
from ddcnn.training.members import TrainableMembers

Stack = list[tuple[nn.Parameter, torch.Size]]
"""Parameters of the same members, each with the shape in which a value per member broadcasts against it."""
Gradient = tuple[nn.Parameter, Tensor, torch.Size]
"""A parameter, its gradient, and that shape."""


@torch.no_grad()
def clip_gradients(distribution: Distribution, stacks: Sequence[Stack], max_norm: float) -> None:
    """Shorten the gradient of each member that is longer than ``max_norm``, as ``torch.nn.utils.clip_grad_norm_``.

    The norm is that over all parameters of one member. Nothing waits for the device, unless for another process.
    """
    for gradients, total in with_norms(distribution, stacks):
        shares = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for _, gradient, shape in gradients:
            gradient.mul_(shares.view(shape))


def with_norms(distribution: Distribution, stacks: Sequence[Stack]) -> Iterator[tuple[list[Gradient], Tensor]]:
    """Yield the gradients of each stack, and the norm of each of its members over all of them."""
    for stack in stacks:
        gradients = [(p, p.grad, shape) for p, shape in stack if p.grad is not None]
        if gradients:
            norms = [torch.linalg.vector_norm(g.reshape(shape.numel(), -1), dim=1) for _, g, shape in gradients]
            yield gradients, distribution.global_grad_norm([p for p, _, _ in gradients], torch.stack(norms))


def stacks_of(network: TrainableMembers) -> list[Stack]:
    """Return the parameters of members that are stacked with each other; a member that runs in turn is by itself."""
    stacks: dict[tuple[int, ...], Stack] = {}
    for parameter, owners in network.per_parameter(torch.arange(network.members)):
        stacks.setdefault(tuple(owners.flatten().tolist()), []).append((parameter, owners.shape))
    assert sum(map(len, stacks)) == network.members, "the parameters of a member lie in different stacks"
    return list(stacks.values())

"""Sharpness-aware minimisation (Foret et al., arXiv 2010.01412), for each member by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from ddcnn.training.clipping import Stack, with_norms
from ddcnn.training.distribution import Distribution
from ddcnn.training.members import TrainableMembers


@contextmanager
def climbed(
    network: TrainableMembers, stacks: Sequence[Stack], distribution: Distribution, radius: float
) -> Iterator[None]:
    """Within it, each member stands ``radius`` up its gradient; afterwards parameters and buffers are as before.

    The gradients that it needs are there already. Those that are computed within it stay.
    """
    moved: list[nn.Parameter] = []
    steps = []
    with torch.no_grad():
        for gradients, total in with_norms(distribution, stacks):
            share = radius / (total + 1e-12)
            moved += [p for p, _, _ in gradients]
            steps += [gradient * share.view(shape) for _, gradient, shape in gradients]
        kept = [*moved, *cast(nn.Module, network).buffers()]
        before = [value.detach().clone() for value in kept]
        for parameter, step in zip(moved, steps, strict=True):
            parameter.add_(step)
    try:
        yield
    finally:
        with torch.no_grad():
            for value, old in zip(kept, before, strict=True):
                value.copy_(old)

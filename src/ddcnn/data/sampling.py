"""In which order an epoch sees its samples: each once, or each class equally often."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor


def shuffled(indices: Int64[Tensor, "m"], generator: torch.Generator) -> Int64[Tensor, "m"]:
    """Return the samples in random order."""
    return indices[torch.randperm(len(indices), generator=generator)]


def balanced(indices: Int64[Tensor, "m"], labels: Int64[Tensor, "m"], generator: torch.Generator) -> Int64[Tensor, "m"]:
    """Return as many samples in random order, equally many of each class up to one.

    Of a rare class all samples come before one comes again; of a frequent one some wait for another epoch.

    >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> balanced(torch.arange(6), labels, torch.Generator().manual_seed(0)).sort().values[3:].tolist()
    [5, 5, 5]
    """
    classes = labels.unique()
    share, more = divmod(len(indices), len(classes))
    extra = torch.randperm(len(classes), generator=generator) < more  # whose turn it is changes with the epoch
    drawn = []
    for label, one_more in zip(classes, extra, strict=True):
        members, wanted = indices[labels == label], share + int(one_more)
        rounds = [shuffled(members, generator) for _ in range(-(-wanted // len(members)))]
        drawn.append(torch.cat([*rounds, members[:0]])[:wanted])
    return shuffled(torch.cat(drawn), generator)

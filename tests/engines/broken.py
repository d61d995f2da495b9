"""Networks that cannot be built, or trained, for one subdomain, where a test says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddcnn.engines.task import find
from ddcnn.errors import DataError
from tests.strategies.tiny import tiny as whole


def tiny(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return the tiny network, but in a worker process none for the seed ``$BROKEN_SEED``."""
    if "ddcnn.engines.worker" in sys.orig_argv and os.environ.get("BROKEN_SEED") == str(torch.initial_seed()):
        raise RuntimeError("broken by a test")
    return whole(in_channels, classes, image_size, width=width)


class Late(nn.Module):
    """Passes its input on; raises in its third training step what ``$BROKEN_WITH`` names, if it is doomed."""

    def __init__(self) -> None:
        super().__init__()
        self.doomed, self.steps = os.environ.get("BROKEN_SEED") == str(torch.initial_seed()), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if self.doomed and self.steps == 3:
            _raise(os.environ["BROKEN_WITH"])
        return x


def _raise(what: str) -> None:
    if what == "an assertion of ddcnn":
        find("not.ddcnn:name")
    raise {one.__name__: one for one in (RuntimeError, AssertionError, MemoryError, DataError)}[what](
        "broken by a test"
    )


def late(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return the tiny network, which breaks in the training where a test says so."""
    return nn.Sequential(Late(), whole(in_channels, classes, image_size, width=width))

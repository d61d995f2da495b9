"""A network that cannot be built for one subdomain, where a test says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch
from torch import nn

from tests.strategies.tiny import tiny as whole


def tiny(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return the tiny network, but in a worker process none for the seed ``$BROKEN_SEED``."""
    if "ddcnn.engines.worker" in sys.orig_argv and os.environ.get("BROKEN_SEED") == str(torch.initial_seed()):
        raise RuntimeError("broken by a test")
    return whole(in_channels, classes, image_size, width=width)

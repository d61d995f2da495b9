"""A network that ends its rank in the middle of the training: by an error, a signal, or as if the power had failed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ddcnn.errors import DataError
from tests.strategies.tiny import tiny

_STEPS = 8


class Failing(nn.Module):
    """Passes its input on, until it has done so often enough on rank 1.

    How it ends is said by its argument, or by ``$HOW_TO_END``, which workers of a Ray cluster do not see.
    """

    def __init__(self, how: str | None = None) -> None:
        super().__init__()
        self.steps, self.how = 0, how

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        how = self.how or os.environ.get("HOW_TO_END", "")
        if how == "first alone" and os.environ.get("RANK") == "0" and not x.is_meta and x.any():
            raise DataError("image 7 cannot be read")
        if self.training and (how == "signal" or (how.startswith("slow until ") and not _named(how).exists())):
            time.sleep(0.1)  # ranks ask each other once a second
        if self.steps == _STEPS and os.environ.get("RANK") == "1":
            _end(how)
        return x


def _named(how: str) -> Path:
    """Return the file that makes a difference."""
    return Path(how.split(maxsplit=2)[2])


def _end(how: str) -> None:
    if not how or how.startswith("slow"):
        return
    if how == "error":
        raise DataError("image 7 cannot be read")
    if how == "bug":
        raise KeyError("a bug")
    if how.startswith("kill once "):
        if _named(how).exists():
            return
        _named(how).touch()
    os.kill(os.getpid(), signal.SIGKILL if how.startswith("kill") else signal.SIGTERM)


def network(
    in_channels: int,
    classes: int,
    image_size: Sequence[int],
    *,
    width: float,
    dropout: float = 0.0,
    how: str | None = None,
) -> nn.Module:
    """Return a network that is trained in no time."""
    return nn.Sequential(Failing(how), nn.Dropout(dropout), tiny(in_channels, classes, image_size, width=width))

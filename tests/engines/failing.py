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
    """Passes its input on, until it has done so often enough on rank 1."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if os.environ.get("HOW_TO_END") == "first alone" and os.environ.get("RANK") == "0" and not x.is_meta:
            raise DataError("image 7 cannot be read")
        if self.training and os.environ.get("HOW_TO_END") in ("signal", "slow"):
            time.sleep(0.1)  # ranks ask each other once a second
        if self.steps == _STEPS and os.environ.get("RANK") == "1":
            _end(os.environ.get("HOW_TO_END"))
        return x


def _end(how: str | None) -> None:
    if how in (None, "slow"):
        return
    if how == "error":
        raise DataError("image 7 cannot be read")
    if how == "bug":
        raise KeyError("a bug")
    if how.startswith("kill once "):
        mark = Path(how.removeprefix("kill once "))
        if mark.exists():
            return
        mark.touch()
    os.kill(os.getpid(), signal.SIGKILL if how.startswith("kill") else signal.SIGTERM)


def network(
    in_channels: int, classes: int, image_size: Sequence[int], *, width: float, dropout: float = 0.0
) -> nn.Module:
    """Return a network that is trained in no time."""
    return nn.Sequential(Failing(), nn.Dropout(dropout), tiny(in_channels, classes, image_size, width=width))

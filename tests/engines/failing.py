"""A network that ends its rank in the middle of the training: by an error, or as if the machine had lost power."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

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
        if self.steps > _STEPS and os.environ.get("RANK") == "1":
            if os.environ["HOW_TO_END"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("image 7 cannot be read") if os.environ["HOW_TO_END"] == "error" else KeyError("a bug")
        return x


def network(in_channels: int, classes: int, image_size: Sequence[int], *, width: float) -> nn.Module:
    """Return a network that is trained in no time."""
    return nn.Sequential(Failing(), tiny(in_channels, classes, image_size, width=width))

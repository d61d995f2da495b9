"""Number formats of the computation: float32, or bfloat16 where that is exact enough and faster."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

PrecisionName = Literal["float32", "bfloat16"]


def autocast(precision: PrecisionName, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which networks compute; parameters, losses and aggregations stay in float32.

    bfloat16 has the range of float32, so that losses need no scaling.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)

"""`ComputePlan`: the device, the number format, and how many local CNNs run at once in which way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddcnn.config import ComputeConfig
from ddcnn.errors import ConfigError, in_one_line
from ddcnn.fusion import Backend
from ddcnn.training import PrecisionName


@dataclass(frozen=True)
class ComputePlan:
    """How a run is computed.

    Attributes
    ----------
    config
        Nothing in it is ``auto`` once `ddcnn.planning.choose_fastest` has decided.
    device
        Where.
    """

    config: ComputeConfig
    device: torch.device

    @property
    def precision(self) -> PrecisionName:
        """The number format that was decided on."""
        assert self.config.precision != "auto"
        return self.config.precision

    @property
    def graphs(self) -> bool:
        """Whether passes may be replayed as CUDA graphs; they keep memory, of which a limit knows nothing."""
        return self.config.cuda_graphs and self.device.type == "cuda" and self.config.memory is None

    @property
    def backend(self) -> Backend:
        """How local CNNs run at once."""
        return self.config.backend

    @property
    def group(self) -> int | None:
        """Most local CNNs that are trained at once; None: all."""
        return self.config.group

    @property
    def limit(self) -> int | None:
        """Bytes of this process's memory that may be used; None: as many as there are, or it is a GPU's."""
        return self.config.memory if self.device.type == "cpu" else None

    def with_(self, **changes: Any) -> ComputePlan:
        """Return another plan for the same device."""
        return ComputePlan(self.config.model_copy(update=changes), self.device)

    def groups(self, indices: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Divide subdomains into those whose local CNNs are trained at once; the sizes differ by at most one."""
        count = math.ceil(len(indices) / (self.group or len(indices)))
        return tuple(tuple(group.tolist()) for group in np.array_split(indices, count))


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU where there is one.

    Raises
    ------
    ConfigError
        There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = in_one_line(error)
        raise ConfigError(f"compute.device = {name!r} cannot be used here: {reason}; use cpu or auto") from None
    return device

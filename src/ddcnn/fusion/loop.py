"""N networks in turn: the reference for every other backend, and the one that always works."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LoopBody(nn.Module):
    """N networks, one after the other."""

    backend = "looped"

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        form = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim - 1, torch.contiguous_format)
        return torch.stack([net(x[:, n].contiguous(memory_format=form)) for n, net in enumerate(self.networks)], 1)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n."""
        return self.networks[n].state_dict()

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the value, of the (N,) values, of its network."""
        return [(p, values[n]) for n, network in enumerate(self.networks) for p in network.parameters()]

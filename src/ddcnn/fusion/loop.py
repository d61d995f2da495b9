"""N networks in turn: the reference for every other backend, and the one that always works."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LoopBody(nn.Module):
    """N networks, one after the other.

    Parameters
    ----------
    channels_last
        Lay the input out so that convolutions are faster; a network that takes views of its activations may not work
        with it.
    """

    backend = "looped"

    def __init__(self, modules: Sequence[nn.Module], *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.networks = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        form = torch.contiguous_format
        if self.channels_last:
            form = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim - 1, form)
        return torch.stack([net(x[:, n].contiguous(memory_format=form)) for n, net in enumerate(self.networks)], 1)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n."""
        return self.networks[n].state_dict()

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the value, of the (N,) values, of its network."""
        return [(p, values[n]) for n, network in enumerate(self.networks) for p in network.parameters()]

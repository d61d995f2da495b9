"""N networks in turn: the reference for every other backend, and the one that always works."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion.tap import Tap
from ddcnn.seeds import own_random_numbers

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes


class LoopBody(nn.Module):
    """N networks, one after the other.

    Parameters
    ----------
    channels_last
        Lay the input out so that convolutions are faster, if the networks work with it: those that take views of
        their activations may not.
    """

    backend = "looped"

    def __init__(self, modules: Sequence[nn.Module], *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self._tried: dict[bool, bool] = {}  # in eval and in train mode
        self.networks = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        scores, _ = self.tapped(x, None)
        return scores

    def tapped(self, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor | None]:
        """Return scores (B, N, K), and what reached a layer, (B, N, F), by its name in one network; None: nothing."""
        form = CHANNELS_LAST.get(x.ndim - 1, torch.contiguous_format)
        if not self.channels_last or not self._takes(x, form):
            form = torch.contiguous_format
        parts = (part.contiguous(memory_format=form) for part in x.unbind(1))
        scores, seen = [], []
        for network, part in zip(self.networks, parts, strict=True):
            with Tap(network, layer) as tap:
                scores.append(check_scores(network(part)))
            if layer is not None:
                seen.append(tap.value.flatten(1))
        return torch.stack(scores, 1), torch.stack(seen, 1) if seen else None

    def _takes(self, x: Tensor, form: torch.memory_format) -> bool:
        """Tell whether the networks work with this layout: tried once, on a copy."""
        if not x.is_cuda and any(map(_crashes_channels_last, self.networks[0].modules())):
            return False
        training = self.networks[0].training
        if training not in self._tried:
            self._tried[training] = any(self._runs(x[:samples, 0].contiguous(memory_format=form)) for samples in (1, 2))
        return self._tried[training]

    def _runs(self, part: Tensor) -> bool:
        """Tell whether a network runs on this; a batch norm in train mode does not on one sample, perhaps."""
        try:
            with torch.no_grad(), own_random_numbers(part.device):
                copy.deepcopy(self.networks[0])(part)
        except (RuntimeError, ValueError):
            return False
        return True

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n."""
        return self.networks[n].state_dict()

    def code(self) -> list[nn.Module]:
        """Return the networks whose code runs."""
        return [*self.networks]

    def extract(self, n: int) -> nn.Module:
        """Return network n alone: a copy."""
        return copy.deepcopy(self.networks[n])

    def member_gradient(self, n: int) -> dict[str, Tensor]:
        """Return the gradients of network n under the names of its parameters; zeros where there is none."""
        return {name: gradient_of(p) for name, p in self.networks[n].named_parameters()}

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the value, of the (N,) values, of its network."""
        return [(p, values[n]) for n, network in enumerate(self.networks) for p in network.parameters()]


def _crashes_channels_last(layer: nn.Module) -> bool:
    """Know the convolutions of which oneDNN 3.x destroys memory: see `ddcnn.fusion.layers.stride_without_kernel`."""
    if not isinstance(layer, nn.Conv2d | nn.Conv3d) or layer.in_channels // layer.groups >= 16:
        return False
    return all(k == 1 for k in layer.kernel_size) and any(s > 1 for s in layer.stride)


def gradient_of(parameter: nn.Parameter, n: int | None = None) -> Tensor:
    """Return a gradient, or that of network n in a stacked parameter; zeros where there is none."""
    own: Any = ... if n is None else n
    return torch.zeros_like(parameter.detach()[own]) if parameter.grad is None else parameter.grad[own]


def check_scores(scores: Any) -> Tensor:
    """Return what a network returned if it is a tensor.

    Raises
    ------
    FusionError
        It is something else, such as a dictionary.
    """
    if isinstance(scores, Tensor):
        return scores
    raise FusionError(
        f"a local CNN should return one tensor of scores, (B, K), got {type(scores).__name__}; "
        "wrap it in a module that returns its scores alone"
    )

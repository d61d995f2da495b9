"""`fuse` and `unfuse`: N equal networks <-> one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion.choice import difference, measure, training_step
from ddcnn.fusion.graph import GraphBody, Unfusable
from ddcnn.fusion.loop import LoopBody

Backend = Literal["auto", "fused", "looped"]
_TOLERANCE = 1e-6  # relative, in float64


class FusedCNN(nn.Module):
    """N equal networks that run as one; made by `fuse`.

    Attributes
    ----------
    backend
        How they run: ``"fused"`` (one grouped network) or ``"looped"`` (in turn).
    reason
        Why, in one line.
    """

    def __init__(self, body: GraphBody | LoopBody, template: nn.Module, members: int, reason: str) -> None:
        super().__init__()
        self.body = body
        self.members = members
        self.reason = reason
        self._template = (template,)  # in a tuple: not a part of this network, only the form of its members

    @property
    def backend(self) -> str:
        """How the networks run: ``"fused"`` or ``"looped"``."""
        return self.body.backend

    def forward(self, x: Shaped[Tensor, "B N C *s"]) -> Float[Tensor, "B N K"]:
        """Return the scores of all N networks, each on its own subimages."""
        if x.ndim < 3 or x.shape[1] != self.members:
            raise FusionError(f"{self.members} networks take input (B, {self.members}, C, *s), got {tuple(x.shape)}")
        scores: Tensor = self.body(x)
        return scores

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n, under the names of the original modules."""
        return self.body.member_state(n)

    @torch.no_grad()
    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy parameters and buffers into network n."""
        for name, value in self.member_state(n).items():
            value.copy_(state[name])

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (N,) values of its networks, in a shape that broadcasts against it."""
        return self.body.per_parameter(values)

    def subset(self, members: Sequence[int]) -> FusedCNN:
        """Return copies of some of the networks, in that order, as one network with the same backend."""
        part = fuse([self.extract(n) for n in members], backend=cast(Backend, self.backend))
        part.reason = self.reason
        return part

    def extract(self, n: int) -> nn.Module:
        """Return network n alone, as a module of the original class."""
        if isinstance(self.body, LoopBody):
            return copy.deepcopy(self.body.networks[n])
        module = copy.deepcopy(self._template[0])
        state = self.member_state(n)
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name in state:  # the networks may have moved to another type or device since
                value.data = value.data.to(state[name])
        module.load_state_dict(state)
        return module.train(self.training)


def fuse(
    modules: Sequence[nn.Module], *, backend: Backend = "auto", example: Shaped[Tensor, "B N C *s"] | None = None
) -> FusedCNN:
    """Run N equal networks as one: exact, and faster where many of them are small.

    Parameters
    ----------
    modules
        N networks of one structure, each (B, C, *s) -> (B, K). Their parameters are copied.
    backend
        ``"fused"`` or ``"looped"``; ``"auto"`` takes what is faster on the example, and without one what can be fused.
    example
        Input of real shape and device. With it, a fused network is proved equal to the loop before it is used.

    Raises
    ------
    FusionError
        No networks, one of them twice, different structures, or ``backend="fused"`` for what cannot be fused.

    Examples
    --------
    >>> nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)) for _ in range(5)]
    >>> fused = fuse(nets)
    >>> fused.backend, fused(torch.zeros(7, 5, 3, 4, 4)).shape
    ('fused', torch.Size([7, 5, 2]))
    """
    _check_equal(modules)
    body, obstacle = _graph(modules)
    loop = LoopBody([copy.deepcopy(module) for module in modules], channels_last=body is not None)
    looped = _network(loop, modules)
    if backend == "looped":
        return looped
    if backend == "auto" and len(modules) == 1:
        looped.reason = "one network alone needs no fusing"
        return looped
    if body is None:
        return _fall_back(looped, obstacle, backend)
    fused = _network(body, modules)
    if example is None:
        fused.reason = "it can be fused (no example to measure on)" if backend == "auto" else "as asked"
        return fused
    with torch.random.fork_rng(devices=[]):
        if (largest := difference(fused, looped, example)) > _TOLERANCE:
            return _fall_back(looped, f"it differs from the loop by {largest:.1e}, relative", backend)
        return _faster(fused, looped, example) if backend == "auto" else fused


def _graph(modules: Sequence[nn.Module]) -> tuple[GraphBody | None, str]:
    try:
        return GraphBody([copy.deepcopy(module) for module in modules]), ""  # one by one: nothing is shared any more
    except Unfusable as reason:
        return None, str(reason)


def _network(body: GraphBody | LoopBody, modules: Sequence[nn.Module]) -> FusedCNN:
    first = modules[0]
    return FusedCNN(body, copy.deepcopy(first), len(modules), "as asked").train(first.training)


def unfuse(fused: FusedCNN) -> list[nn.Module]:
    """Return the N networks as modules of their own class, with bit-equal parameters and buffers."""
    return [fused.extract(n) for n in range(fused.members)]


def _fall_back(looped: FusedCNN, reason: str, backend: Backend) -> FusedCNN:
    if backend == "fused":
        raise FusionError(f"this network cannot be fused: {reason}; use backend='looped' or 'auto'")
    looped.reason = f"{reason}, so the networks run in turn"
    return looped


def _faster(fused: FusedCNN, looped: FusedCNN, example: Tensor) -> FusedCNN:
    turns = measure({network: training_step(network, example) for network in (fused, looped)})
    seconds = {network: min(times) for network, times in turns.items()}
    best, other = sorted((fused, looped), key=lambda network: seconds[network])
    ratio = seconds[other] / seconds[best]
    best.reason = f"measured {ratio:.2f}x as fast as {other.backend} on {tuple(example.shape)}"
    return best


def structure(module: nn.Module) -> tuple[object, ...]:
    """Return what two networks must share to be fused: class, layers, and names, shapes and types of the state."""
    layers = tuple((name, type(layer).__qualname__, layer.extra_repr()) for name, layer in module.named_modules())
    state = tuple((name, tuple(t.shape), t.dtype, t.device.type) for name, t in module.state_dict().items())
    return layers, state, tuple((name, p.requires_grad) for name, p in module.named_parameters())


def _check_equal(modules: Sequence[nn.Module]) -> None:
    if not modules:
        raise FusionError("fuse needs at least 1 network, got none")
    if len({id(module) for module in modules}) < len(modules):
        raise FusionError(f"the {len(modules)} networks should be different objects, but one is there twice")
    first = structure(modules[0])
    for n, module in enumerate(modules[1:], 1):
        if structure(module) != first:
            raise FusionError(f"network {n} has another structure than network 0; fuse networks of one structure")

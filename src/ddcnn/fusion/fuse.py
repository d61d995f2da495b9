"""`fuse` and `unfuse`: N equal networks <-> one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ddcnn.errors import FusionError, in_one_line, is_out_of_memory
from ddcnn.fusion.backend_choice import fastest, network_key, ratio, training_step
from ddcnn.fusion.body import StackedBody
from ddcnn.fusion.loop import LoopBody
from ddcnn.fusion.proof import find_mismatch, made_up_shape
from ddcnn.fusion.proofs import Proofs
from ddcnn.fusion.stacked import NotSupportedError
from ddcnn.fusion.structural_equality import difference_in_code, structure

BackendName = Literal["fused", "vmapped", "looped"]
Backend = Literal["auto", "fused", "vmapped", "looped"]


class FusedCNN(nn.Module):
    """N equal networks that run as one; made by `fuse`.

    Attributes
    ----------
    backend
        How they run: ``"fused"`` (one grouped network), ``"vmapped"`` (`torch.vmap`) or ``"looped"`` (in turn).
    reason
        Why, in one line.
    """

    def __init__(self, body: StackedBody | LoopBody, members: int, reason: str) -> None:
        super().__init__()
        self.body = body
        self.members = members
        self.reason = reason
        self.proved = isinstance(body, LoopBody)

    @property
    def backend(self) -> str:
        """How the networks run."""
        return self.body.backend

    def forward(self, x: Shaped[Tensor, "B N C *s"]) -> Float[Tensor, "B N *K"]:
        """Return the scores of all N networks, each on its own subimages."""
        scores, _ = self.tapped(x)
        return scores

    def tapped(
        self, x: Shaped[Tensor, "B N C *s"], layer: str | None = None
    ) -> tuple[Float[Tensor, "B N *K"], Float[Tensor, "B N F"] | None]:
        """Return the scores of all N networks, and what reached a layer of them, by its name in one network.

        The proof holds for the classifier as well: the gradient of its weights, which is compared, is made of it.
        """
        _check_input(x, self.members)
        if not self.proved:
            self.prove(x)
        try:
            found = self.body.tapped(x, layer)
        except RuntimeError as reason:  # vmap does not know all operators in all precisions
            if self.backend == "vmapped" or isinstance(reason, NotSupportedError):
                raise FusionError(
                    f"these networks cannot be {self.backend}: {reason}; use backend='looped'"
                ) from reason
            raise
        return found

    def prove(self, example: Shaped[Tensor, "B N C *s"]) -> None:
        """Prove that these networks are equal to the loop over them: outputs, gradients, statistics.

        Raises
        ------
        FusionError
            They are not.
        """
        if reason := find_mismatch(self.body, self.body.extract, example.shape[1:], example.device):
            raise FusionError(f"these networks cannot be {self.backend}: {reason}; use backend='looped' or 'auto'")
        self.proved = True

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n, under the names of the original modules."""
        return self.body.member_state(n)

    @torch.no_grad()
    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy parameters and buffers into network n."""
        for name, value in self.member_state(n).items():
            value.copy_(state[name])

    def member_gradient(self, n: int) -> dict[str, Tensor]:
        """Return the gradients of network n, under the names of its parameters; zeros where there is none."""
        return self.body.member_gradient(n)

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (N,) values of its networks, in a shape that broadcasts against it."""
        return self.body.per_parameter(values)

    def subset(self, members: Sequence[int]) -> FusedCNN:
        """Return copies of some of the networks, in that order, as one network with the same backend."""
        part = build([self.extract(n) for n in members], cast(BackendName, self.backend))
        part.proved = part.proved or self.proved
        part.reason = self.reason
        return part

    def code(self) -> list[nn.Module]:
        """Return the modules whose code runs in a pass."""
        return self.body.code()

    def extract(self, n: int) -> nn.Module:
        """Return network n alone, as a module of the original class."""
        return self.body.extract(n).train(self.training)


def _check_input(x: Tensor, members: int) -> None:
    if x.ndim < 3 or x.shape[1] != members:
        raise FusionError(f"{members} networks take input (B, {members}, C, *s), got {tuple(x.shape)}")


def fuse(
    modules: Sequence[nn.Module],
    backend: str = "auto",
    *,
    example: Shaped[Tensor, "B N C *s"] | None = None,
    sample_shape: Sequence[int] | None = None,
    proofs: Proofs | None = None,
) -> FusedCNN:
    """Run N equal networks as one: exact, and faster where many of them are small.

    The networks are any ``nn.Module`` of one structure. Their own code runs once for all N, on values that know of N
    (`ddcnn.fusion.operators`), so control flow, train and eval mode and any input size stay theirs. A fused network is
    proved equal to the loop, in float64 on random input, before it is used.

    Parameters
    ----------
    modules
        N networks, each (B, C, *s) -> (B, K). Their parameters are copied.
    backend
        ``"fused"``, ``"vmapped"`` or ``"looped"``. ``"auto"`` takes the fastest on the example, measured once per
        network, shape, device and versions, and then remembered; without an example it fuses what can be fused.
    example
        Input of real shape and device. The proof looks at these alone, the measurement computes with it.
    sample_shape
        (C, *s), where there is no example: the proof needs no more. Without either, square input of a size that the
        networks take is made up for it; if there is none, the proof waits for the first input, and an error is raised
        if it fails.
    proofs
        What has been proved before, which is not proved again, and grows by what is proved now; None: nothing.

    Raises
    ------
    FusionError
        No networks, one of them twice, shared parameters, different structures, or a ``backend`` that is not possible.

    Examples
    --------
    >>> nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)) for _ in range(5)]
    >>> fused = fuse(nets)
    >>> fused.backend, fused(torch.zeros(7, 5, 3, 4, 4)).shape
    ('fused', torch.Size([7, 5, 2]))
    """
    if backend not in get_args(Backend):
        raise FusionError(f"backend = {backend!r} is unknown; use {', '.join(get_args(Backend))}")
    check_equal(modules)
    if example is not None:
        _check_input(example, len(modules))
    if backend == "auto":
        return _best(modules, example, sample_shape, proofs)
    network = build(modules, cast(BackendName, backend))
    if not network.proved and (shape := _proof_shape(modules, example, sample_shape)) is not None:
        values = (t.device for t in (example, *modules[0].parameters()) if t is not None)
        device = next(values, torch.device("cpu"))
        if proofs is not None and proofs.holds(modules[0], shape, backend, device):
            network.proved = True
        else:
            network.prove(torch.zeros((), device=device).expand(1, len(modules), *shape))
            if proofs is not None:
                proofs.add(modules[0], shape, backend, device)
    return network


def build(modules: Sequence[nn.Module], backend: BackendName) -> FusedCNN:
    """Return equal networks with one backend, not proved.

    Raises
    ------
    FusionError
        It is not possible.
    """
    body: StackedBody | LoopBody
    if backend == "looped":
        body = LoopBody([copy.deepcopy(module) for module in modules], channels_last=True)
    else:
        try:
            if reason := difference_in_code(modules):
                raise NotSupportedError(reason)
            body = StackedBody(modules, backend)
        except NotSupportedError as reason:
            raise FusionError(f"these networks cannot be {backend}: {reason}; use backend='looped' or 'auto'") from None
    return FusedCNN(body, len(modules), "as asked").train(modules[0].training)


def _proof_shape(
    modules: Sequence[nn.Module], example: Tensor | None, sample_shape: Sequence[int] | None
) -> Sequence[int] | None:
    """Return the shape (C, *s) on which networks are proved; None: it is not known yet."""
    if example is not None:
        return example.shape[2:]
    if sample_shape is not None:
        return sample_shape
    return made_up_shape(modules[0])


def _best(
    modules: Sequence[nn.Module],
    example: Tensor | None,
    sample_shape: Sequence[int] | None,
    proofs: Proofs | None,
) -> FusedCNN:
    if len(modules) == 1:
        network = build(modules, "looped")
        network.reason = "one network alone needs no fusing"
        return network
    candidates, obstacles = {}, []
    for backend in ("fused", "vmapped"):
        try:
            candidates[backend] = fuse(modules, backend, example=example, sample_shape=sample_shape, proofs=proofs)
        except FusionError as error:
            obstacles.append(str(error).partition("; use")[0])
            continue
        if example is None:
            candidates[backend].reason = "it can be fused (no example to measure on)"
            return candidates[backend]
    candidates["looped"] = build(modules, "looped")  # not before: a copy less while the others are proved
    best, reason = "looped", ""
    if example is not None and len(candidates) > 1:
        steps = {name: training_step(copy.deepcopy(network), example) for name, network in candidates.items()}
        try:
            best, seconds = fastest(steps, [len(modules), *network_key(modules[0], example)])
        except (RuntimeError, ValueError) as error:
            if isinstance(error, FusionError) or is_out_of_memory(error):
                raise
            what = f"{tuple(example.shape)}, {str(example.dtype).removeprefix('torch.')}"
            raise FusionError(f"the networks cannot compute the example, {what}: {in_one_line(error)}") from error
        reason = ratio(seconds, best)
    candidates[best].reason = "; ".join(filter(None, [reason, *obstacles]))
    return candidates[best]


def unfuse(fused: FusedCNN) -> list[nn.Module]:
    """Return the N networks as modules of their own class, with bit-equal parameters and buffers."""
    return [fused.extract(n) for n in range(fused.members)]


def check_equal(modules: Sequence[nn.Module]) -> None:
    """Refuse what is not a list of separate networks of one structure."""
    if not modules:
        raise FusionError("fuse needs at least 1 network, got none")
    if len({id(module) for module in modules}) < len(modules):
        raise FusionError(f"the {len(modules)} networks should be different objects, but one is there twice")
    first = structure(modules[0])
    owners: dict[int, int] = {}
    for n, module in enumerate(modules):
        if difference := _first_difference(structure(module), first):
            raise FusionError(f"network {n} has another structure than network 0: {difference}; fuse equal networks")
        for name, parameter in module.named_parameters():
            if (owner := owners.setdefault(id(parameter), n)) != n:
                raise FusionError(f"networks {owner} and {n} share the parameter {name}; give each its own")


def _first_difference(a: object, b: object) -> str:
    if a == b:
        return ""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and any(isinstance(x, tuple) for x in a):
        return next(_first_difference(x, y) for x, y in zip(a, b, strict=True) if x != y)
    return f"{a} against {b}" if isinstance(a, tuple) and len(a) < 9 else "they have other layers"

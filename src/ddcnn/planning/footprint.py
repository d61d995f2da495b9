"""What a training step computes and keeps, counted and not measured: parameters, operations, activations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ddcnn.planning.trial import step_of
from ddcnn.planning.work import Work
from ddcnn.training.step import deterministic_layers


@dataclass(frozen=True)
class Footprint:
    """What a training step computes and keeps.

    Attributes
    ----------
    parameters
        Numbers that are trained, of all members together.
    operations
        Floating-point operations of forward and backward pass, per image: of convolutions and matrix products, which
        are nearly all.
    activations
        Bytes that the forward pass of a batch keeps for the backward pass.
    memory
        Bytes of it all: activations; and of each parameter its value, its gradient, what the optimiser keeps, and the
        copy of the best epoch.
    """

    parameters: int
    operations: int
    activations: int
    memory: int


def footprint(work: Work) -> Footprint:
    """Count, on tensors without content; where a network must see numbers, one step is computed."""
    network = work.network()
    module = cast(nn.Module, network)
    step, batch = step_of(work, network), next(work.train.shuffled(1))
    kept = _Kept([*module.parameters(), *module.buffers()])

    def count(*, real: bool) -> int:
        kept.bytes_of.clear()
        counter = FlopCounterMode(display=False)
        fake = contextlib.nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)
        with deterministic_layers(work.train.device, 0), fake, counter, kept.hooks:
            _, loss = step.forward(batch)
            loss.total.backward()
        return int(counter.get_total_flops())

    module.train()
    try:
        operations = count(real=False)
    except Exception:  # whatever a network of the user's own makes of tensors without content
        module.zero_grad()
        operations = count(real=True)
    trained = [p for p in module.parameters() if p.requires_grad]
    copies = {"sgd": 4 if work.training.momentum else 3, "adam": 5, "adamw": 5}[work.training.optimizer]
    activations = sum(kept.bytes_of.values())
    return Footprint(
        sum(p.numel() for p in trained),
        operations // len(batch),
        activations,
        activations + copies * sum(p.nbytes for p in trained),
    )


class _Kept:
    """Counts the bytes that autograd keeps, each storage once, those of the network left out."""

    def __init__(self, own: list[Tensor]) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self.bytes_of: dict[int, int] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self.bytes_of[storage._cdata] = storage.nbytes()
        return tensor

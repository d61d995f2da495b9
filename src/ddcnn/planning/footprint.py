"""What a training step computes and keeps, counted and not timed: parameters, operations, activations."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ddcnn.planning.trial import step_of
from ddcnn.planning.work import Work
from ddcnn.seeds import own_random_numbers
from ddcnn.training import Step

_SMALL, _LARGE = 2, 4  # images: what is kept grows on a straight line with the batch
_STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that the optimiser keeps for each parameter


@dataclass(frozen=True)
class Footprint:
    """What a training step computes and keeps.

    Attributes
    ----------
    parameters
        Numbers that are trained, of all members together.
    operations
        Floating-point operations of convolutions and matrix products, which are nearly all, per image: three times
        those of the forward pass, since the gradients of inputs and of weights cost as much each.
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
    """Count on forward passes of a few images, and extend that to a batch."""
    network = work.network()
    module = cast(nn.Module, network).train()
    step, batch = step_of(work, network), min(work.train.batch_size, len(work.train))
    sizes = [min(size, batch) for size in (_SMALL, _LARGE)]
    (small, _), (large, operations) = (_counted(step, work, module, size) for size in sizes)
    slope = (large - small) / max(sizes[1] - sizes[0], 1)
    trained = [p for p in module.parameters() if p.requires_grad]
    activations = round(small + (batch - sizes[0]) * slope)
    copies = 3 + _STATES[work.training.optimizer]
    return Footprint(
        sum(p.numel() for p in trained),
        3 * operations // sizes[1],
        activations,
        activations + copies * sum(p.nbytes for p in trained),
    )


def _counted(step: Step, work: Work, module: nn.Module, size: int) -> tuple[int, int]:
    """Return the bytes that are kept of so many images, and the operations of their forward pass."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would hold the node that made it, which holds it: never freed

    with closing(work.train.of_size(size).shuffled(1)) as batches:
        batch = next(batches)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with own_random_numbers(work.train.device, 0), hooks, Operations() as operations:
        _ = step.loss(batch)
    return sum(kept.values()), operations.total


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of a block, as a context; N networks may be one.

    Counted are convolutions and matrix products, by PyTorch's own formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=found)
        return found

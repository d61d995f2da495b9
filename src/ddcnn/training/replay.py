"""`Replay`: the forward and backward pass of a step on a GPU, captured once as a CUDA graph and then replayed.

Small networks keep a GPU waiting: Python takes some microseconds to start each of several hundred kernels. A CUDA graph
starts them all at once. The optimiser is no part of it: its kernels are few, their rates change from step to step, and
Python prepares them while the GPU is still at work.

A graph repeats kernels on the memory that they had, and knows nothing of the code that started them. So before the
first replay it is compared with the code, on two batches one after the other: losses, gradients, buffers and random
numbers. They must be the same bit for bit, unless two passes of the code differ. At each step it is compared what the
code reads (`ddcnn.fusion.watched`) and where parameters and buffers are. Where anything differs, the code runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddcnn.data.batch import Batch
from ddcnn.decomposition import Subimages
from ddcnn.errors import in_one_line
from ddcnn.fusion import FusedCNN
from ddcnn.fusion.structural_equality import has_hooks
from ddcnn.fusion.watched import UnwatchableError, Watch
from ddcnn.seeds import generators_outside_torch, own_random_numbers
from ddcnn.training.distribution import Distribution
from ddcnn.training.members import TrainableMembers
from ddcnn.training.objective import At, Objective

PASSES = 32
"""Passes of one kind before it is captured, which takes some passes more."""
_NOT_EXACT = 1e-3  # of the largest number: how far two passes may be apart if those of the code differ
_DONE = "forward and backward pass are replayed as one CUDA graph"
_TIMES = (0.25, 0.7)  # how much of the training is over, for two batches
_DRAWS = "its code draws random numbers on the CPU"

Pass = tuple[Tensor, Tensor]
"""Loss of each member, and how many samples it had right."""
Compute = Callable[[Batch, At], Pass]
"""The pass of a batch, when so much of the training is over."""
Capture = Callable[[Callable[[], Pass], torch.device], tuple[Pass, Callable[[], None]]]
"""Runs a function once, on a device; returns what it returned, and what repeats its kernels in the same memory."""


class Replay:
    """Runs the passes of a step, and replays them once they are captured.

    Parameters
    ----------
    network
        Whose gradients the passes compute.
    after
        The pass of a kind that is captured, from 2; the code must not have changed anything since the one before.
    capture
        How.
    note
        Is told in one line that passes are replayed from now on, or why they are not; None: nobody is.
    """

    def __init__(
        self,
        network: TrainableMembers,
        *,
        after: int = PASSES,
        capture: Capture | None = None,
        note: Callable[[str], object] | None = None,
    ) -> None:
        self.network, self.after, self.note = network, after, note or str
        self.capture = capture or capture_cuda_graph
        self._passes: Counter[object] = Counter()
        self._code: _Code | None = None
        self._graph: _Graph | None = None
        self._over = False

    def subset(self, network: TrainableMembers) -> Replay:
        """Return one for a network that holds some of the members: other kernels, which are captured anew."""
        return Replay(network, after=self.after, capture=self.capture, note=self.note)

    def __call__(self, compute: Compute, batch: Batch, at: float) -> Pass:
        """Return ``compute(batch, at)`` and leave its gradients, replayed if a batch of this kind was captured."""
        kind = _kind(batch)
        if self._graph is None and not self._over:
            self._passes[kind] += 1
            if self._passes[kind] == self.after - 1:
                return self._watched(compute, batch, at)
            if self._passes[kind] == self.after:
                self._take(compute, batch)
        if self._graph is None or self._graph.kind != kind:
            return compute(batch, at)
        if not self._graph.code.is_as_before():
            self._graph = None
            self._give_up("what the code of the network reads has changed")
            return compute(batch, at)
        return self._graph.replay(batch, at)

    def _watched(self, compute: Compute, batch: Batch, at: float) -> Pass:
        """Run the code once more, and see whether it can be replayed at all: trying it out would change a counter."""
        try:
            self._code = _Code(cast(nn.Module, self.network))
        except NotReplayableError as error:
            self._give_up(str(error))
            return compute(batch, at)
        thrown = _generators(batch.targets.device)
        found = compute(batch, at)
        if _generators(batch.targets.device) != thrown:
            self._give_up(_DRAWS)
        elif not self._code.is_as_before():
            self._give_up("a pass changes what its code reads")
        return found

    def _take(self, compute: Compute, batch: Batch) -> None:
        assert self._code is not None
        try:
            self._graph = _captured(self._code, self.capture, compute, batch)
            self.note(_DONE)
        except Exception as error:  # whatever it is, the code itself still runs
            self._give_up(str(error) if isinstance(error, NotReplayableError) else in_one_line(error))

    def _give_up(self, reason: str) -> None:
        self._over = True
        self.note(f"no CUDA graph: {reason}")


def replay_of(
    network: TrainableMembers,
    objective: Objective,
    distribution: Distribution,
    *,
    after: int = PASSES,
    note: Callable[[str], object] | None = None,
) -> Replay | None:
    """Return what may replay a training; None where other processes take part, or the objective may change."""
    if type(distribution) is not Distribution or not getattr(objective, "replayable", False):
        return None
    return Replay(network, after=after, note=note)


class NotReplayableError(Exception):
    """Passes cannot be replayed; the message says why, in one line."""


class _Code:
    """What the code of a network reads, and where its parameters and buffers are."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        owners = [*_not_ours(network)]
        self._fused = [layer for layer in network.modules() if isinstance(layer, FusedCNN)]
        try:
            if any(has_hooks(layer) for whole in (network, *owners) for layer in whole.modules()):
                raise UnwatchableError
            self._watch = Watch(*owners)
            self._places = self._where()
        except (UnwatchableError, RecursionError):
            raise NotReplayableError("what its code reads cannot be watched") from None

    def is_as_before(self) -> bool:
        """Tell whether the code would start the same kernels on the same memory."""
        for network in self._fused:
            network.code()  # in the mode in which it would run
        try:
            return self._where() == self._places and self._watch.is_as_before()
        except (UnwatchableError, RecursionError):
            return False

    def _where(self) -> list[int]:
        return [value.data_ptr() for value in (*self.network.parameters(), *self.network.buffers())]


@dataclass(frozen=True)
class _Graph:
    """Captured passes, and the memory that they work on."""

    kind: object
    batch: Batch
    at: Tensor
    found: Pass
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    launch: Callable[[], None]
    code: _Code

    def replay(self, batch: Batch, at: At) -> Pass:
        """Compute with a batch of this kind."""
        for own, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            own.copy_(given, non_blocking=True)
        self.at.fill_(at)
        self.launch()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        losses, correct = self.found
        return losses.clone(), correct.clone()


def capture_cuda_graph(run: Callable[[], Pass], device: torch.device) -> tuple[Pass, Callable[[], None]]:
    """Capture a function as a CUDA graph."""
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run()  # libraries allocate what they need
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may be loading images
            found = run()
    return found, graph.replay


def _captured(code: _Code, capture: Capture, compute: Compute, batch: Batch) -> _Graph:
    """Return a graph that does as the code, from batches of this kind.

    Raises
    ------
    NotReplayableError
        There is none.
    """
    if not code.is_as_before():
        raise NotReplayableError("what its code reads has changed")
    network, device = code.network, batch.targets.device
    kept = [buffer.detach().clone() for buffer in network.buffers()]
    try:
        other = replace(batch, inputs=_mapped(batch.inputs, lambda images: images.roll(1, 0)))
        expected, again = (_outcomes(compute, [batch, other], network, kept) for _ in range(2))
        memory, at = _copy(batch), torch.zeros((), dtype=torch.float64, device=device)
        with own_random_numbers(device):
            thrown = _generators(device)
            found, launch = capture(lambda: compute(memory, at), device)
            if _generators(device) != thrown:
                raise NotReplayableError(_DRAWS)
        gradients = [(p, p.grad) for p in network.parameters()]
        graph = _Graph(_kind(batch), memory, at, found, gradients, launch, code)
        replayed = _outcomes(graph.replay, [batch, other], network, kept)
        tolerance = 0.0 if _close(expected, again, 0.0) else _NOT_EXACT
        if not (_close(expected, replayed, tolerance) and code.is_as_before()):
            raise NotReplayableError("it would not compute the same")
    finally:
        _restore(network, kept)
    return graph


def _not_ours(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks and layers in it whose code is not of this library, so that it may read what changes."""
    if isinstance(network, FusedCNN):
        for one in network.code():
            yield from _not_ours(one)
    elif _is_ours(network):
        for child in network.children():
            yield from _not_ours(child)
    else:
        yield network


def _is_ours(network: nn.Module) -> bool:
    """Tell whether a module runs code of this library, or none but that of its children."""
    kind = type(network)
    known = kind.__module__.partition(".")[0] == "ddcnn" or kind in (nn.ModuleList, nn.Sequential)
    return known and "forward" not in vars(network)


def _outcomes(run: Compute, batches: Sequence[Batch], network: nn.Module, kept: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of all that some passes leave, one after the other, from the same buffers and random numbers."""
    _restore(network, kept)
    found: list[Tensor] = []
    with own_random_numbers(batches[0].targets.device, 0):
        for batch, at in zip(batches, _TIMES, strict=True):
            found += run(batch, at)
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            found += [value.detach().clone() for value in (*gradients, *network.buffers())]
    return found


@torch.no_grad()
def _restore(network: nn.Module, kept: Sequence[Tensor]) -> None:
    for buffer, value in zip(network.buffers(), kept, strict=True):
        buffer.copy_(value)


def _close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float) -> bool:
    """Tell whether numbers are as close as this, as a share of the largest of their kind; 0: the same."""
    return len(a) == len(b) and all(
        x.shape == y.shape
        and torch.allclose(x.double(), y.double(), rtol=0, atol=tolerance * _largest(x), equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _largest(values: Tensor) -> float:
    return float(values.nan_to_num(0).abs().max()) if values.numel() else 0.0


def _generators(device: torch.device) -> tuple[object, ...]:
    """Return the states of all generators that are not of the device."""
    own = () if device.type == "cpu" else (torch.get_rng_state().numpy().tobytes(),)
    return (*generators_outside_torch(), *own)


def _tensors(batch: Batch) -> list[Tensor]:
    inputs = batch.inputs.parts if isinstance(batch.inputs, Subimages) else [batch.inputs]
    return [*inputs, batch.targets, batch.samples, *(batch.extras[name] for name in sorted(batch.extras))]


def _kind(batch: Batch) -> object:
    """Return what decides which kernels run."""
    return (*sorted(batch.extras), *((t.shape, t.stride(), t.dtype, t.device) for t in _tensors(batch)))


def _mapped(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    return inputs.map(function) if isinstance(inputs, Subimages) else function(inputs)


def _copy(batch: Batch) -> Batch:
    extras = {name: value.clone() for name, value in batch.extras.items()}
    return Batch(_mapped(batch.inputs, Tensor.clone), batch.targets.clone(), batch.samples.clone(), extras)

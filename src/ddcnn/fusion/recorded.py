"""`Recorded`: the operators that a training step's forward pass runs, recorded once and replayed.

A fused network runs its own Python code on values that know of N, at some 20 microseconds per operator. A training
repeats the same operators on the same shapes thousands of times. So after some passes they are recorded, below what
knows of N, and then replayed: the same kernels on the same numbers, hence bit-equal; this is checked before the first
replay. Whatever could change what the code does is compared at each pass: shapes, number format, the attributes of all
layers, and what else their code reads (`ddcnn.fusion.watched`). Where anything differs or cannot be watched, recording
fails, or the code draws from Python's or NumPy's generators, the code runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ddcnn.fusion.watched import UnwatchableError, Watch
from ddcnn.seeds import generators_outside_torch, own_random_numbers

PASSES = 80
"""Passes of one kind before it is recorded, which takes as long as what so many replays save: 65 to 143 by measurement,
80 in the median (``benchmarks/recorded.py``). So a training of any length pays at most twice what it would at best.
"""
_PLAIN = (Tensor, nn.Parameter)
_log = logging.getLogger(__name__)


class Recorded:
    """Replays the forward pass of a network in train mode.

    Parameters
    ----------
    template
        The network whose code runs; what it computes depends on its attributes, which are watched.

    Attributes
    ----------
    after
        The pass of a kind that is recorded.
    """

    def __init__(self, template: nn.Module) -> None:
        self.after = PASSES
        self._template = template
        self._watch: Watch | None = None
        self._watchable = True
        self._passes: dict[object, int] = {}
        self._graphs: dict[object, GraphModule | None] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as one that has recorded nothing."""
        return Recorded, (self._template,)

    def __call__(self, run: Callable[[Sequence[Tensor], Tensor], Tensor], state: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return ``run(state, x)``, replayed if it is known.

        Parameters
        ----------
        run
            Runs the code on parameters and buffers.
        state, x
            What it is run on.
        """
        kind = _kind(state, x) if self._watchable else None
        if kind is None:
            return run(state, x)
        if not self._is_as_before():
            self._passes.clear()
            self._graphs.clear()
        if kind not in self._graphs:
            self._passes[kind] = 1 + self._passes.get(kind, 0)
            if self._passes[kind] < self.after:
                return run(state, x)
            self._watch = None  # functions may have been replaced by others, which read something else
            self._is_as_before()
            self._graphs[kind] = _record(run, state, x) if self._watchable else None
        graph = self._graphs[kind]
        return run(state, x) if graph is None else graph(state, x)

    def _is_as_before(self) -> bool:
        """Tell whether all that the code reads is as it was at the last pass; if that cannot be told, for good: no."""
        try:
            if self._watch is not None:
                return self._watch.is_as_before()
            self._watch = Watch(self._template)
        except (UnwatchableError, RecursionError):
            self._watchable = False
        return False


def _kind(state: Sequence[Tensor], x: Tensor) -> object:
    """Return what decides which operators run; None where others watch or change them."""
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack() or not torch.is_grad_enabled():
        return None
    if any(type(v) not in _PLAIN or torch._C._functorch.is_functorch_wrapped_tensor(v) for v in (x, *state)):
        return None
    device = x.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    values = tuple((v.dtype, v.device, v.requires_grad) for v in state)
    return x.shape, x.stride(), x.dtype, x.device, x.requires_grad, cast, values


def _record(
    run: Callable[[Sequence[Tensor], Tensor], Tensor], state: Sequence[Tensor], x: Tensor
) -> GraphModule | None:
    """Return a graph that does the same, bit for bit; None if there is none."""
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second to import

    def code(state: Sequence[Tensor], x: Tensor) -> Tensor:  # make_fx cannot count those of a method
        return run(state, x)

    try:
        device = x.device.type
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False), _fork(x.device):
            graph = make_fx(code, tracing_mode="fake")([value.detach() for value in state], x.detach())
        dice, expected = generators_outside_torch(), _results(run, state, x)
        if generators_outside_torch() != dice:  # a graph would not throw them again
            return None
        same = all(map(torch.equal, expected, _results(graph, state, x)))
    except Exception as error:  # whatever it is, the code itself still runs
        _log.debug("a forward pass cannot be recorded: %s", error)
        return None
    return graph if same else None


def _results(run: Callable[..., Tensor], state: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Return scores, gradients and changed buffers of a pass on copies; a gradient that is none is empty."""
    with _fork(x.device):
        twins = [value.detach().clone().requires_grad_(value.requires_grad) for value in state]
        seen = x.detach().clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad)
        scores = run(twins, seen)
        inputs = [value for value in (*twins, seen) if value.requires_grad]
        weights = torch.linspace(-1, 1, scores.numel(), device=x.device).view(scores.shape)
        found = torch.autograd.grad((scores.float() * weights).sum(), inputs, allow_unused=True)
        empty = torch.empty(0)
        return [scores.detach(), *(empty if g is None else g for g in found), *(t.detach() for t in twins)]


def _fork(device: torch.device) -> AbstractContextManager[None]:
    return own_random_numbers(device)

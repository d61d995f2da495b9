"""The proof: is a fused network equal to the loop? Outputs, gradients and running statistics, on random input."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion.body import StackedBody
from ddcnn.fusion.loop import LoopBody, check_scores
from ddcnn.fusion.proof_modes import NothingRandom, SampleBySample
from ddcnn.machine import return_freed_memory
from ddcnn.seeds import own_random_numbers
from ddcnn.text import size_text

TOLERANCE = 1e-6  # relative, in float64
_DISTURBANCE = 1e-12  # relative; thousands of times what rounding changes in float64
_SAMPLES = (3, 12, 48)  # batch norm of few values amplifies rounding, that of many does not
LARGE = 2**22  # bytes of input: below, what a convolution unfolds is small
_ANNOUNCED = 2**30  # bytes: a proof that takes more is announced
_CHUNK = 2**20  # numbers that are compared at a time
_SIZES = (8, 16, 32, 64, 224)  # of images that are made up
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, FusionError)
_BOTH_MODES = (True, False)  # train first: it moves the running statistics that eval uses
_log = logging.getLogger(__name__)


class _IllConditionedError(Exception):
    """The loop itself turns rounding errors into differences, so that nothing can be compared with it."""


def find_mismatch(
    candidate: StackedBody | LoopBody, network: Callable[[int], nn.Module], shape: Sequence[int], device: torch.device
) -> str:
    """Compare a copy of N networks with each of them alone, on input of shape (N, C, *s).

    In float64, with other parameters than theirs (a layer that is zero at first would hide all behind it), in train
    and in eval mode. Random numbers that a network draws are replaced by fixed ones, and dropout by nothing. Where
    the results differ, one network alone is run again with input and parameters disturbed by 1e-12. If that changes
    its results, too, the input shows nothing, and more samples are taken. The tolerance never grows.

    In memory are the parameters and gradients of the copy, and those of one network at a time: 4 + 4/N times the
    bytes of all parameters in float32.

    Parameters
    ----------
    candidate
        The networks as they shall run.
    network
        Returns a copy of network n, alone.

    Returns
    -------
    str
        How they differ, why the candidate cannot compute, or why they cannot be compared, in one line; empty where
        they are equal.
    """
    _announce(candidate, shape[0])
    reason = ""
    with ExitStack() as contexts:
        contexts.enter_context(own_random_numbers(device))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(torch.autocast(device.type, enabled=False))
        for samples in _SAMPLES:
            generator = torch.Generator().manual_seed(0)
            x = torch.randn((samples, *shape), generator=generator, dtype=torch.float64).to(device)
            with contextlib.nullcontext() if x.nbytes <= LARGE else SampleBySample():  # type: ignore[no-untyped-call]
                try:
                    return _mismatch(candidate, network, x)
                except _IllConditionedError as error:
                    reason = str(error)
    return reason


def made_up_shape(network: nn.Module) -> tuple[int, ...] | None:
    """Return the shape (C, *s) of input that a network takes, found by trying; None if nothing fits."""
    network = copy.deepcopy(network).eval()
    for layer in network.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            shapes = [(layer.in_channels, *(size,) * (layer.weight.ndim - 2)) for size in _SIZES]
            break
        if isinstance(layer, nn.Linear):
            shapes = [(layer.in_features,)]
            break
    else:
        return None
    for shape in shapes:
        example = torch.zeros((2, *shape), dtype=layer.weight.dtype, device=layer.weight.device)
        with torch.no_grad(), contextlib.suppress(Exception):  # whatever a network raises: it does not take this
            scores = network(example)
            if isinstance(scores, Tensor) and scores.ndim > 1 and len(scores) == len(example):
                return shape
    return None


def _announce(candidate: nn.Module, members: int) -> None:
    numbers = sum(p.numel() for p in candidate.parameters())
    needed = 4 * numbers * (4 + 4 / members)
    if needed > _ANNOUNCED:
        _log.warning(
            "to prove that %d networks of %.0f M parameters run %s as they would alone takes %s of memory, and "
            "their activations; backend='looped' needs no proof",
            *(members, numbers / members / 1e6, getattr(candidate, "backend", ""), size_text(round(needed))),
        )


def _mismatch(candidate: StackedBody | LoopBody, network: Callable[[int], nn.Module], x: Tensor) -> str:
    members = x.shape[1]
    try:
        draws = _draws(network(0).double().train(), x[:, 0].clone())
    except _FAILURES as error:
        with torch.no_grad():
            network(0).train()(x[:, 0].float())  # what it raises here is an error of the user's
        return f"it cannot be compared in float64: {_first_line(error)}"
    if draws:
        return draws  # then any difference may be chance
    twin = copy.deepcopy(candidate).double()
    for n in range(members):
        _randomize(twin.member_state(n), n)
    for training in _BOTH_MODES:
        return_freed_memory()
        try:
            scores, slope = _run(twin.train(training), x, lambda y: _weights(y.shape[0], members, y.shape[2:], y))
        except _FAILURES as error:
            _alone(network, 0, x, training)  # what it raises itself is an error of the user's
            return _first_line(error)
        for n in range(members):
            found = scores[:, n], slope[:, n], twin.member_state(n), twin.member_gradient(n)
            largest = _difference(_results(*found), _alone(network, n, x, training))
            del found  # the gradients of all networks: views of them
            if largest > TOLERANCE:
                twin.zero_grad()
                _check_condition(network, n, x, training)
                return f"it differs from the loop by {largest:.1e}, relative"
        twin.zero_grad()
    return _fails_on_chance(twin.train(), x)


def _check_condition(network: Callable[[int], nn.Module], n: int, x: Tensor, training: bool) -> None:
    """Raise an error if network n alone computes something else when it is disturbed a little."""
    disturbed = _alone(network, n, x, training, disturbance=_DISTURBANCE)
    change = _difference(disturbed, _alone(network, n, x, training))
    if change > TOLERANCE:
        raise _IllConditionedError(
            f"it cannot be compared with the loop, which itself changes by {change:.1e} if {len(x)} samples "
            f"{tuple(x.shape[2:])} change by {_DISTURBANCE:.0e}"
        )


def _alone(
    network: Callable[[int], nn.Module], n: int, x: Tensor, training: bool, *, disturbance: float = 0.0
) -> dict[str, Tensor]:
    """Return what network n computes alone; in eval mode after a forward pass in train mode."""
    alone, own = network(n).double().train(), x[:, n].contiguous()
    state = {name: value.detach() for name, value in alone.state_dict().items()}
    _randomize(state, n)
    if disturbance:
        generator = torch.Generator().manual_seed(0)
        own = own.clone()
        for value in (own, *(p.detach() for p in alone.parameters())):
            value.addcmul_(value, _noise(value, generator), value=disturbance)
    if not training:
        with torch.no_grad(), NothingRandom():
            alone(own)
    alone.train(training)
    scores, slope = _run(alone, own, lambda y: _weights(len(y), x.shape[1], y.shape[1:], y)[:, n])
    gradients = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in alone.named_parameters()}
    return _results(scores, slope, state, gradients)


def _run(network: nn.Module, x: Tensor, weights: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Run forward and backward; return the scores, and the gradient of their weighted sum in the input."""
    inputs = x.clone().requires_grad_()
    with NothingRandom():
        try:
            scores = check_scores(network(inputs))
        except RuntimeError as error:
            if "leaf Variable" not in str(error):
                raise
            scores = check_scores(network(inputs.clone()))  # which may be changed in place, a leaf may not
    if scores.requires_grad:
        (scores * weights(scores)).sum().backward()
    return scores.detach(), torch.zeros_like(x) if inputs.grad is None else inputs.grad


def _weights(samples: int, members: int, classes: Sequence[int], like: Tensor) -> Tensor:
    """Return different weights for all scores (B, N, *K)."""
    shape = (samples, members, *classes)
    return torch.linspace(-1, 1, math.prod(shape), dtype=like.dtype, device=like.device).view(shape)


def _results(
    scores: Tensor, slope: Tensor, state: dict[str, Tensor], gradients: dict[str, Tensor]
) -> dict[str, Tensor]:
    named = {f"state {k}": v for k, v in state.items()} | {f"gradient {k}": v for k, v in gradients.items()}
    return {"scores": scores, "input": slope, **named}


@torch.no_grad()
def _randomize(state: dict[str, Tensor], n: int) -> None:
    """Change parameters and statistics; variances stay positive, counts and tables stay as they are.

    What is added to weights depends on how many values they sum up: a layer of zeros then neither hides what is
    behind it nor makes it larger, layer by layer.
    """
    generator = torch.Generator().manual_seed(1 + n)
    for name, value in state.items():
        is_variance = name.endswith("running_var")
        if value.is_floating_point() and (is_variance or name.endswith(("weight", "bias", "running_mean"))):
            summands = value.numel() / len(value) if value.ndim > 1 and len(value) else 1
            noise = _noise(value, generator).mul_(min(0.1, summands**-0.5) if summands else 0.1)
            value.add_(noise.abs_() if is_variance else noise)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)


def _difference(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference, each relative to the largest value of its kind (gradients: of any)."""
    if got.keys() != expected.keys() or any(got[key].shape != value.shape for key, value in expected.items()):
        return float("inf")
    steepest = max((_size(v) for key, v in expected.items() if key.startswith("gradient")), default=0.0)
    worst = 0.0
    for key, value in expected.items():
        scale = max(_size(value), 1e-3 * steepest if key.startswith("gradient") else 0.0, 1e-12)
        gaps = (_gap(a, b) for a, b in zip(_chunks(got[key]), _chunks(value), strict=True))
        worst = max(worst, max(gaps, default=0.0) / scale)
    return worst


def _gap(got: Tensor, expected: Tensor) -> float:
    same = (got == expected) | (got.isnan() & expected.isnan())  # a network may have diverged, in both
    gap = (got.double() - expected.double()).abs().masked_fill(same, 0.0)
    return float(gap.nan_to_num(float("inf"), float("inf")).max()) if gap.numel() else 0.0


def _size(value: Tensor) -> float:
    """Return the largest of the finite numbers."""
    parts = (part.double().nan_to_num(0.0, 0.0, 0.0).abs().max() for part in _chunks(value) if part.numel())
    return max(map(float, parts), default=0.0)


def _chunks(value: Tensor) -> Iterator[Tensor]:
    """Yield a tensor in pieces along its first axis: a copy of a large one as a whole would count."""
    rows = max(1, _CHUNK * len(value) // max(1, value.numel())) if value.ndim else 1
    yield from value.split(rows) if value.ndim else (value,)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def _fails_on_chance(network: nn.Module, x: Tensor) -> str:
    """Run with real random numbers, whose values may decide what is computed."""
    try:
        with torch.no_grad():
            network(x)
    except _FAILURES as error:
        return _first_line(error)
    return ""


def _draws(network: nn.Module, x: Tensor) -> str:
    before = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    with torch.no_grad(), NothingRandom():
        network(x)
    after = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    return "" if before == after else "it draws random numbers in a way that cannot be compared"

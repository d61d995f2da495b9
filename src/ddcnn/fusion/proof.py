"""The door: is a fused network equal to the loop? Outputs, gradients and running statistics, on random input."""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddcnn.errors import FusionError
from ddcnn.fusion.loop import LoopBody
from ddcnn.fusion.operators import names

TOLERANCE = 1e-6  # relative, in float64
_SAMPLES = 3
_LARGE = 2**22  # bytes of input: below, what a convolution unfolds is small
_SIZES = (8, 16, 32, 64, 224)  # of images that are made up
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, FusionError)
_BOTH_MODES = (True, False)  # train first: it moves the running statistics that eval uses


def find_mismatch(candidate: Any, looped: Any, example: Tensor) -> str:
    """Compare copies of two `ddcnn.FusedCNN` of the same networks.

    In float64, with other parameters than theirs (a layer that is zero at first would hide all behind it), in train
    and in eval mode. Random numbers that a network draws are replaced by fixed ones, and dropout by nothing.

    Returns
    -------
    str
        How they differ, or why the candidate cannot compute, in one line; empty where they are equal.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((_SAMPLES, *example.shape[1:]), generator=generator, dtype=torch.float64).to(example.device)
    with ExitStack() as contexts:
        contexts.enter_context(torch.random.fork_rng(devices=_cuda(example)))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(_no_autocast(example))
        if x.nbytes > _LARGE:
            contexts.enter_context(_SampleBySample())  # type: ignore[no-untyped-call]
        a, b = (copy.deepcopy(network).double() for network in (candidate, looped))
        for n in range(x.shape[1]):
            state = _disturbed(b.member_state(n), n)
            a.load_member_state(n, state)
            b.load_member_state(n, state)
        for training in _BOTH_MODES:
            expected = _one_by_one(b.train(training), x)
            try:
                got = _pass(a.train(training), x)
            except _FAILURES as error:
                return _first_line(error)
            if (largest := _difference(got, expected)) > TOLERANCE:
                return f"it differs from the loop by {largest:.1e}, relative"
        if reason := _fails_on_chance(a.train(), x):
            return reason
        return _draws(b.extract(0).train(), x[:, 0])


def guess_example(modules: Sequence[nn.Module]) -> Tensor | None:
    """Return input that the networks take, (2, N, C, *s), found by trying; None if nothing fits."""
    network = copy.deepcopy(modules[0]).eval()
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
                return example.unsqueeze(1).expand(-1, len(modules), *shape)
    return None


def _cuda(example: Tensor) -> list[torch.device]:
    return [example.device] if example.is_cuda else []


def _no_autocast(example: Tensor) -> torch.autocast:
    return torch.autocast(example.device.type, enabled=False)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def _fails_on_chance(network: Any, x: Tensor) -> str:
    """Run with real random numbers, whose values may decide what is computed."""
    try:
        with torch.no_grad():
            network(x)
    except _FAILURES as error:
        return _first_line(error)
    return ""


def _draws(network: nn.Module, x: Tensor) -> str:
    before = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    with torch.no_grad(), _Fixed():
        network(x)
    after = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    return "" if before == after else "it draws random numbers in a way that cannot be compared"


def _disturbed(state: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    """Return other numbers of the same kind: variances stay positive, counts and tables stay as they are."""
    generator = torch.Generator().manual_seed(1 + n)
    new = {}
    for name, value in state.items():
        noise = 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        is_variance = name.endswith("running_var")
        changes = value.is_floating_point() and (is_variance or name.endswith(("weight", "bias", "running_mean")))
        new[name] = value + (noise.abs() if is_variance else noise) if changes else value.clone()
    return new


def _one_by_one(looped: Any, x: Tensor) -> dict[str, Tensor]:
    """Return what `_pass` does, from one network after the other: never are the activations of all in memory."""
    every = x.shape[1]
    parts = []
    for n, network in enumerate(looped.body.networks):
        alone = type(looped)(LoopBody([network], channels_last=False), 1, looped.reason).train(looped.training)
        parts.append(_pass(alone, x[:, n : n + 1], n, every))
    found = {key: torch.cat([part.pop(key) for part in parts], 1) for key in ("scores", "input")}
    for part in parts:
        found.update(part)
    return found


def _pass(network: Any, x: Tensor, first: int = 0, every: int | None = None) -> dict[str, Tensor]:
    """Return all that a forward and backward pass computes; ``first``, ``every``: of some of the networks."""
    inputs = x.clone().requires_grad_()
    network.zero_grad()
    with _Fixed():
        scores = network(inputs)
    members = x.shape[1]
    shape = (len(scores), every or members, *scores.shape[2:])
    weights = torch.linspace(-1, 1, math.prod(shape), dtype=scores.dtype, device=scores.device).view(shape)
    found = {"scores": scores.detach()}
    if scores.requires_grad:
        (scores * weights[:, first : first + members]).sum().backward()
    found["input"] = torch.zeros_like(x) if inputs.grad is None else inputs.grad
    for n in range(members):
        for kind, values in (("state", network.member_state(n)), ("gradient", network.member_gradient(n))):
            found.update({f"{kind} {first + n} {name}": value.clone() for name, value in values.items()})
    return found


def _difference(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference, each relative to the largest value of its kind (gradients: of any)."""
    if got.keys() != expected.keys() or any(got[key].shape != value.shape for key, value in expected.items()):
        return float("inf")
    steepest = max((_size(v) for key, v in expected.items() if key.startswith("gradient")), default=0.0)
    worst = 0.0
    for key, value in expected.items():
        scale = max(_size(value), 1e-3 * steepest if key.startswith("gradient") else 0.0, 1e-12)
        same = (got[key] == value) | (got[key].isnan() & value.isnan())  # a network may have diverged, in both
        gap = (got[key].double() - value.double()).abs().masked_fill(same, 0.0)
        worst = max(worst, float(gap.nan_to_num(float("inf"), float("inf")).max()) / scale if gap.numel() else 0.0)
    return worst


def _size(value: Tensor) -> float:
    """Return the largest of the finite numbers."""
    return float(value.double().nan_to_num(0.0, 0.0, 0.0).abs().max()) if value.numel() else 0.0


class _Fixed(TorchFunctionMode):
    """Within it nothing is random."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace what draws random numbers."""
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _DRAWS and (func in (torch.rand, torch.randn) or isinstance(args[0], Tensor)):
            return _filled(func.__name__, args, kwargs)
        return func(*args, **kwargs)


class _SampleBySample(TorchDispatchMode):
    """Within it convolutions take one sample after the other.

    In float64, on CPUs, PyTorch unfolds their input, 27 times as large for 3x3x3, for all samples and groups at once.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute; below autograd, so both ways."""
        if func is torch.ops.aten.convolution.default:
            return torch.cat([func(part, *args[1:]) for part in args[0].split(1)])
        if func is torch.ops.aten.convolution_backward.default:
            pairs = zip(args[0].split(1), args[1].split(1), strict=True)
            inputs, weights, biases = zip(*(func(*pair, *args[2:]) for pair in pairs), strict=True)
            sums = (None if part[0] is None else torch.stack(part).sum(0) for part in (weights, biases))
            return None if inputs[0] is None else torch.cat(inputs), *sums
        return func(*args, **(kwargs or {}))


_DROPOUTS = set(
    names(F, torch, of="dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout")
)
_VALUES = {"rand": 0.5, "uniform": 0.5, "bernoulli": 1.0, "rand_like": 0.5, "exponential": 0.5}
_DRAWS = set(names(torch, Tensor, of="rand randn rand_like randn_like bernoulli uniform normal exponential"))


def _filled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the middle of what could have been drawn."""
    value = _VALUES.get(name.rstrip("_"), 0.0)
    if name in ("rand", "randn"):
        kwargs.pop("generator", None)
        return torch.zeros(*args, **kwargs) + value
    with torch.no_grad():
        return args[0].fill_(value) if name.endswith("_") else torch.full_like(args[0], value)

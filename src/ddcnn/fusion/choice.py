"""Fused or looped: proved equal, then measured on the real shapes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Name = TypeVar("Name")


def difference(fused: nn.Module, looped: nn.Module, example: Tensor) -> float:
    """Return the largest relative difference of outputs on random input, in float64, in train and in eval mode.

    Infinite where the fused network fails on input that the loop takes.
    """
    a, b = (_without_dropout(copy.deepcopy(network).double()) for network in (fused, looped))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *example.shape[1:]), generator=generator, dtype=torch.float64).to(example.device)
    worst = 0.0
    with torch.no_grad():
        for training in (True, False):  # train first: it moves the running statistics that eval uses
            expected = b.train(training)(x)
            try:
                got = a.train(training)(x)
            except RuntimeError:  # shapes that do not fit each other once N is folded into the channels
                return float("inf")
            if got.shape != expected.shape:
                return float("inf")
            gap = float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
            if math.isnan(gap):
                return float("inf")
            worst = max(worst, gap)
    return worst


def _without_dropout(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0  # random numbers differ, and prove nothing
    return network


def measure(candidates: Mapping[Name, Callable[[], object]], *, rounds: int = 5) -> dict[Name, list[float]]:
    """Return the seconds of each candidate, run in turns, after one turn as a warm-up.

    To choose, take the minimum: whatever else the machine does only ever adds time.
    """
    times: dict[Name, list[float]] = {name: [] for name in candidates}
    for _ in range(1 + rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def training_step(network: nn.Module, example: Tensor) -> Callable[[], None]:
    """Return a function that runs a copy of the network forward and backward, and waits for the device."""
    network = copy.deepcopy(network).train()

    def run() -> None:
        network(example).float().square().mean().backward()
        network.zero_grad(set_to_none=True)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)

    return run

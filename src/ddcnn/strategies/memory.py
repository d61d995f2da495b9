"""The memory plan: how many local CNNs are trained at once, and whether images are resident, under a given limit."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ddcnn.data.ahead import DEPTH
from ddcnn.data.lazy import OnHost, load
from ddcnn.errors import ConfigError
from ddcnn.fusion import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.strategies.coherent import Supervised
from ddcnn.strategies.problem import Problem
from ddcnn.training import PrecisionName, Stage, Step
from ddcnn.training.member_optimizer import MemberOptimizer
from ddcnn.training.trainee import Trainee

_SPARE = 1.1  # what was measured on one step, against what a training needs: allocators leave gaps
_GB = 1e9


@dataclass(frozen=True)
class Plan:
    """How a limit is kept.

    Attributes
    ----------
    limit
        Bytes that may be used.
    group
        Local CNNs that are trained at once.
    resident
        Whether all images lie on the device.
    expected
        Peak in bytes: what is there, and what a step was measured to need.
    """

    limit: int
    group: int
    resident: bool
    expected: int

    def line(self, subdomains: int) -> str:
        """Return the plan in one line."""
        where = "resident" if self.resident else "streamed"
        return (
            f"{_gb(self.limit)} at most: {self.group} of {subdomains} local CNNs at once, images {where}, "
            f"planned peak {_gb(self.expected)}"
        )


def plan_memory(problem: Problem, whole: Sequence[str]) -> tuple[Problem, Plan | None]:
    """Choose group size and residency so that ``compute.memory`` holds; the batch size stays what it is.

    One training step is measured for 1, 2, 4, ... local CNNs, and the next only if it is sure to fit.

    Parameters
    ----------
    whole
        What else the run trains, on whole images: of ``"global"`` and ``"coherent"``.

    Returns
    -------
    problem
        With the group size, and perhaps with images that were made resident.
    plan
        None without a limit.

    Raises
    ------
    ConfigError
        Not even one subdomain, or one of the ``whole`` networks, fits; or memory cannot be measured here.
    """
    limit = problem.config.compute.memory
    if limit is None:
        return problem, None
    trial = _Trial(problem)
    trial.step(trial.local(1), 1)  # libraries allocate when they are first used
    base = _used(problem.device) + trial.kept + (0 if isinstance(problem.images, Tensor) else trial.ahead)
    room = limit - base
    batch = trial.batch
    fits, needed = largest(lambda b: trial.step(trial.local(1), b), batch, room)
    if fits < batch:
        raise ConfigError(_too_small(limit, base, "one local CNN", needed * batch // max(fits, 1), batch))
    group, needed = largest(lambda n: trial.step(trial.local(n), batch), trial.subdomains, room)
    peak = base + needed
    for name in whole:
        build: Callable[[], Trainee] = trial.global_cnn if name == "global" else trial.coherent
        fits, needed = largest(partial(trial.step, build), batch, room)
        if fits < batch:
            raise ConfigError(_too_small(limit, base, f"the {name} network", needed * batch // max(fits, 1), batch))
        peak = max(peak, base + needed)
    return _placed(replace(problem, group=group), limit, peak)


def largest(measure: Callable[[int], int], most: int, room: int) -> tuple[int, int]:
    """Return the largest size up to ``most`` that needs at most ``room`` bytes, and how many it needs.

    Sizes 1, 2, 4, ... are measured, each only if twice the bytes of the one before would fit; between two of them, the
    need is taken to be proportional, which is too much rather than too little. 0 if even size 1 does not fit.

    >>> largest(lambda size: 100 + 10 * size, most=32, room=250)
    (11, 247)
    """
    size, needed = 0, 0
    while size < most:
        following = min(max(1, 2 * size), most)
        if size and needed * following > room * size:
            break
        found = measure(following)
        if found > room:
            if not size:
                return 0, found
            break
        size, needed = following, found
    between = max(size, min(most, room * size // max(needed, 1)))
    return between, needed * between // size


class _Trial:
    """Training steps of networks of different size, and the memory that they need."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        config = problem.config
        self.subdomains = math.prod(config.decomposition.grid)
        self.batch = min(config.training.batch_size, len(problem.split.train))
        image = problem.dataset.channels * math.prod(problem.dataset.image_size)
        self.ahead = (DEPTH + 2) * self.batch * image * problem.dataset.images.dtype.itemsize
        modules = problem.local_modules()
        self.kept = 2 * sum(p.nbytes for module in modules for p in module.parameters())  # the result, and its states

    def local(self, count: int) -> Callable[[], LocalCNNs]:
        """Return what builds the first local CNNs."""
        indices = tuple(range(count))
        return lambda: self.problem.local_cnns(self.problem.local_modules(indices=indices), indices)

    def global_cnn(self) -> LocalCNNs:
        """Build the global CNN."""
        return self.problem.global_cnn()

    def coherent(self) -> Supervised:
        """Build the coherent model."""
        problem = self.problem
        aggregation = problem.aggregation(problem.config.aggregation.name)
        local_cnns = problem.local_cnns(problem.local_modules())
        return Supervised(CNNDNN(problem.decomposition, local_cnns, aggregation), problem.config.coherent.local_weight)

    def step(self, build: Callable[[], Trainee], batch: int) -> int:
        """Return the bytes by which two steps and a copy of the parameters raise the peak."""
        device = self.problem.device
        before = _used(device)
        with Stage("plan", device) as stage, torch.random.fork_rng(devices=[]):
            self._run(build(), batch)
        if stage.peak_memory_bytes is None:
            raise ConfigError("compute.memory cannot be kept here: this system does not tell how much memory is used")
        return max(1, int(_SPARE * (stage.peak_memory_bytes - before)))

    def _run(self, network: Trainee, batch: int) -> None:
        problem = self.problem
        subdomains = network.subdomains if isinstance(network, LocalCNNs) else None
        batches = problem.batches(problem.split.train[:batch], "plan", subdomains, augment=True)
        batches = replace(batches, batch_size=batch)
        precision: PrecisionName = "bfloat16" if problem.config.compute.precision == "bfloat16" else "float32"
        step = Step(network, MemberOptimizer(network, problem.config.training), precision)
        cast(nn.Module, network).train()
        for epoch in (1, 2):
            for inputs, labels in batches.shuffled(epoch):
                step(inputs, labels)
        _ = [{k: v.clone() for k, v in network.member_state(n).items()} for n in range(network.members)]


def _placed(problem: Problem, limit: int, peak: int) -> tuple[Problem, Plan]:
    """Make images resident if there is room for them beside everything else."""
    assert problem.group is not None
    images = problem.images
    if isinstance(images, Tensor):
        return problem, Plan(limit, problem.group, True, peak)
    size = math.prod(images.shape) * images.dtype.itemsize
    trial = _Trial(problem)
    whole = trial.batch * trial.problem.dataset.channels * math.prod(problem.dataset.image_size)
    moving = whole * (8 + 8)  # whole batches: as floats, twice, and where each pixel comes from
    if peak + size + moving > limit:
        return problem, Plan(limit, problem.group, False, peak)
    inside = images.images if isinstance(images, OnHost) else load(images)
    return replace(problem, images=inside.to(problem.device)), Plan(limit, problem.group, True, peak + size + moving)


def _used(device: torch.device) -> int:
    """Return the bytes in use now, with nothing kept back for later."""
    gc.collect()
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if not sys.platform.startswith("linux"):
        return 0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _too_small(limit: int, base: int, what: str, needed: int, batch: int) -> str:
    return (
        f"compute.memory = {_gb(limit)} is too little: {_gb(base)} are in use before the training, and a step of "
        f"{what} at batch size {batch} needs about {_gb(needed)}; use a smaller batch size, a finer grid or more memory"
    )


def _gb(size: int) -> str:
    return f"{size / _GB:.2f} GB"

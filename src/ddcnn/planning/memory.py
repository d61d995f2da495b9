"""The memory plan: how many local CNNs are trained at once, and whether images are resident, under a given limit."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch

from ddcnn.data.lazy import OnHost, Resident, load
from ddcnn.data.prefetch import DEPTH
from ddcnn.data.training_data import TrainingData
from ddcnn.errors import ConfigError, FusionError
from ddcnn.fusion import BackendName, Proofs
from ddcnn.machine import resident_memory, return_freed_memory
from ddcnn.models import LocalCNNs
from ddcnn.network_factory import NetworkFactory
from ddcnn.planning.compute import ComputePlan
from ddcnn.planning.trial import copied, endless
from ddcnn.seeds import own_random_numbers
from ddcnn.text import size_text
from ddcnn.training import (
    CrossEntropy,
    FadingLocalLosses,
    MemberOptimizer,
    Objective,
    PrecisionName,
    StageTimer,
    Step,
    TrainableMembers,
    WholeNetwork,
)

_SPARE = 1.1  # what a training needs, against what was measured on one step: allocators leave gaps
_RESERVE = 2**27  # bytes that Python and libraries take in the course of a run


@dataclass(frozen=True)
class MemoryPlan:
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
        Peak in bytes: what is there, and what a step, or the proof that a backend is exact, was measured to need.
    too_large
        Backends that would need more than the limit for such a group.
    """

    limit: int
    group: int
    resident: bool
    expected: int
    too_large: tuple[BackendName, ...] = ()

    def line(self, subdomains: int) -> str:
        """Return the plan in one line."""
        where = "resident" if self.resident else "streamed"
        return (
            f"{size_text(self.limit)} at most: {self.group} of {subdomains} local CNNs at once, images {where}, "
            f"planned peak {size_text(self.expected)}"
        )


def plan_memory(
    data: TrainingData, networks: NetworkFactory, compute: ComputePlan, whole: Sequence[str]
) -> tuple[TrainingData, ComputePlan, MemoryPlan | None]:
    """Choose group size and residency so that ``compute.memory`` holds; the batch size stays what it is.

    A training step is measured for more and more local CNNs, as long as the next should fit (`largest`), and before
    it, where they do not run in turn, the proof that they may. The group is as large as the fastest form allows,
    which is fused as a rule; forms that need more than that are left out of the choice of a backend.

    Parameters
    ----------
    whole
        What else the run trains, on whole images: of ``"global"`` and ``"coherent"``.

    Returns
    -------
    data
        Perhaps with images that were made resident; evaluated in batches no larger than those of training.
    compute
        With the group size.
    plan
        None without a limit, or where ``compute.group`` is given.

    Raises
    ------
    ConfigError
        Not even one subdomain, or one of the ``whole`` networks, fits; or memory cannot be measured here.
    """
    limit = compute.config.memory
    if limit is None or compute.group is not None:
        return data, compute, None
    data = replace(data, evaluation_size=data.batch_size)  # a step of training needs more for so many
    trial = _Trial(data, networks, compute)
    batch, least = trial.batch, min(2, trial.batch)  # batch norm cannot train on one
    trial.step(trial.local(1), least)  # libraries allocate when they are first used
    streamed = 0 if isinstance(data.images, Resident) else trial.prefetched
    used = _used(compute.device) + _RESERVE
    if limit <= used:
        given, taken = size_text(limit, unlike=used), size_text(used, unlike=limit)
        raise ConfigError(
            f"compute.memory = {given} is too little: {taken} are in use before the training, however small its steps; "
            "give more than that"
        )
    base = used + trial.kept + streamed
    room = limit - base
    fits, needed = largest(lambda b: trial.step(trial.local(1), b), batch, room, least=least)
    if fits < batch:
        raise ConfigError(_too_small(limit, base, "one local CNN", batch, needed * batch // fits if fits else 0))
    group, needs, too_large = _group(trial, room)
    if not needs and compute.backend in ("auto", "looped"):
        raise ConfigError(_too_small(limit, base, "one local CNN", batch, 0))
    if not needs:
        raise ConfigError(
            f"compute.memory = {size_text(limit)} is too little to prove that local CNNs may be {compute.backend}; "
            "use backend=auto or looped, or more memory"
        )
    peak = base + max(needs.values())
    for name in whole:
        coherent = partial(trial.coherent, max(needs, key=lambda backend: needs[backend]))
        build: Callable[[], TrainableMembers] = networks.global_cnn if name == "global" else coherent
        fits, needed = largest(partial(trial.step, build), batch, room, least=least)
        if fits < batch:
            needed = needed * batch // fits if fits else 0
            raise ConfigError(_too_small(limit, base, f"the {name} network", batch, needed))
        peak = max(peak, base + needed)
    data, plan = _placed(data, MemoryPlan(limit, group, True, peak, tuple(too_large)), trial)
    return data, compute.with_(group=group), plan


def _group(trial: _Trial, room: int) -> tuple[int, dict[BackendName, int], list[BackendName]]:
    """Return how many local CNNs are trained at once, what each backend needs for so many, and which need too much."""
    asked = trial.compute.backend
    group, needs, too_large = trial.subdomains, dict[BackendName, int](), list[BackendName]()
    candidates: tuple[BackendName, ...] = ("fused", "looped", "vmapped") if asked == "auto" else (asked,)
    for backend in candidates:
        try:
            fits, needed = largest(partial(trial.needed, backend), group, room)
        except FusionError:
            if asked == backend:
                raise
            continue  # not possible, whatever the memory
        if fits and not needs:
            group = fits
        if fits == group:
            needs[backend] = needed
        else:
            too_large.append(backend)
    return group, needs, too_large


def largest(measure: Callable[[int], int], most: int, room: int, *, least: int = 1) -> tuple[int, int]:
    """Return the largest size up to ``most`` that was measured to need at most ``room`` bytes, and how many it needs.

    The first size is ``least``; the next is at most twice the last, and such that it should still fit: in proportion
    to the first size, later on the straight line through the last two. 0 if even the least does not fit.

    >>> largest(lambda size: 100 + 10 * size, most=32, room=260)
    (16, 260)
    """
    fitting: list[tuple[int, int]] = []
    size = min(least, most)
    while (found := measure(size)) <= room:
        fitting.append((size, found))
        size = _following(fitting, most, room)
        if size == fitting[-1][0]:
            break
    return fitting[-1] if fitting else (0, found)


def _following(fitting: list[tuple[int, int]], most: int, room: int) -> int:
    (before, less), (size, needed) = ([(0, 0), *fitting])[-2:]
    slope = (needed - less) / (size - before)
    affordable = size + int((room - needed) / slope) if slope > 0 else most
    return min(2 * size, affordable, most)


class _Trial:
    """Training steps of networks of different size, and the memory that they need."""

    def __init__(self, data: TrainingData, networks: NetworkFactory, compute: ComputePlan) -> None:
        self.data, self.networks, self.compute = data, networks, compute
        self.subdomains = len(networks.decomposition)
        self.batch = min(data.batch_size, len(data.split.train))
        self.image_values = networks.channels * math.prod(networks.image_size)
        self.prefetched = (DEPTH + 2) * self.batch * self.image_values * data.images.dtype.itemsize
        modules = networks.local_modules()
        self.kept = 2 * sum(p.nbytes for module in modules for p in module.parameters())  # the result, and its states

    def local(self, count: int, backend: BackendName = "looped") -> Callable[[], LocalCNNs]:
        """Return what builds so many local CNNs, of the largest subimages, and proves that they may run so."""
        fresh = replace(self.networks, proofs=Proofs())  # the proof is part of what is measured
        largest_first = sorted(range(self.subdomains), key=lambda n: -self.networks.subdomains[n].pixels)

        def build() -> LocalCNNs:
            local_cnns = fresh.local_cnns(largest_first[:count], backend=backend)
            self.networks.proofs.update(fresh.proofs)
            return local_cnns

        return build

    def coherent(self, backend: BackendName) -> WholeNetwork:
        """Build the coherent model."""
        networks = self.networks
        local_cnns = networks.local_cnns(backend=backend)
        aggregation = networks.aggregation(networks.config.aggregation.name)
        return WholeNetwork(networks.network(local_cnns, aggregation), with_local_scores=True)

    def needed(self, backend: BackendName, count: int) -> int:
        """Return the bytes that so many local CNNs need in this form, and the proof of it."""
        return self.step(self.local(count, backend), self.batch)

    def step(self, build: Callable[[], TrainableMembers], batch: int) -> int:
        """Return the bytes by which two steps and a copy of the parameters raise the peak."""
        device = self.compute.device
        before = _used(device)
        with StageTimer("plan", device) as stage, own_random_numbers():
            self._run(build(), batch)
        if stage.peak_memory_bytes is None:
            raise ConfigError("compute.memory cannot be kept here: this system does not tell how much memory is used")
        return max(1, int(_SPARE * (stage.peak_memory_bytes - before)))

    def _run(self, network: TrainableMembers, batch: int) -> None:
        data = self.data
        local = network.network.local_cnns if isinstance(network, WholeNetwork) else cast(LocalCNNs, network)
        batches = data.batches(data.split.train[:batch], local.subdomains, purpose="plan", augment=True)
        batches = replace(batches, batch_size=batch)
        precision: PrecisionName = "bfloat16" if self.compute.config.precision == "bfloat16" else "float32"
        objective: Objective = FadingLocalLosses(1.0) if isinstance(network, WholeNetwork) else CrossEntropy()
        step = Step(network, MemberOptimizer(network, data.training), precision, objective)
        with closing(endless(step, batches)) as steps:
            for _ in range(2):
                next(steps)
        _ = copied(network)


def _placed(data: TrainingData, plan: MemoryPlan, trial: _Trial) -> tuple[TrainingData, MemoryPlan]:
    """Make images resident if there is room for them beside everything else."""
    images = data.images
    if isinstance(images, Resident):
        return data, plan
    size = math.prod(images.shape) * images.dtype.itemsize
    moving = trial.batch * trial.image_values * (8 + 8)  # whole batches, as floats, twice; where each pixel comes from
    if plan.expected + size + moving > plan.limit:
        return data, replace(plan, resident=False)
    inside = images.images if isinstance(images, OnHost) else load(images)
    resident = Resident(inside.to(trial.compute.device))
    return replace(data, images=resident), replace(plan, expected=plan.expected + size + moving)


def _used(device: torch.device) -> int:
    """Return the bytes in use now, with nothing kept back for later."""
    gc.collect()
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return_freed_memory()
    return resident_memory()


def _too_small(limit: int, base: int, what: str, batch: int, needed: int) -> str:
    needs = f"up to {size_text(needed)}" if needed else "more than is left"
    return (
        f"compute.memory = {size_text(limit)} is too little: {size_text(base)} are in use before the training, and a "
        f"step of {what} at batch size {batch} needs {needs}; use a smaller batch size, a finer grid or more memory"
    )

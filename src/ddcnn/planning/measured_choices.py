"""What ``auto`` means on this machine: measured once, on the real shapes, then recorded in the run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import cast

import torch

from ddcnn.data.batches import Inputs
from ddcnn.decomposition import Subdomain, Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion import BackendName
from ddcnn.fusion.choice import fastest, measure, network_key, training_step
from ddcnn.models import LocalCNNs
from ddcnn.planning.memory import Plan
from ddcnn.strategies.problem import Problem
from ddcnn.training.precision import PrecisionName, autocast

_BACKENDS: tuple[BackendName, ...] = ("fused", "vmapped", "looped")
_PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")


def resolve(problem: Problem, plan: Plan | None = None) -> tuple[Problem, dict[str, str]]:
    """Decide what is left at ``auto``: the precision, and the backend of the local CNNs.

    A few training steps of the local CNNs that are trained at once are timed for each combination. bfloat16 is a
    candidate because it has the range of float32; where the processor has no instructions for it, it loses the
    measurement. Rank 0 decides for all ranks; each proves for its own local CNNs that they can do it.

    Parameters
    ----------
    plan
        Backends for which it leaves no memory are no candidates, those that it has proved are not proved again.

    Returns
    -------
    problem
        Whose configuration has nothing left at ``auto``.
    reasons
        One line each for ``"precision"`` and ``"backend"``.

    Raises
    ------
    FusionError
        ``fused`` was asked for, or decided by rank 0, but is not possible.
    """
    reasons: dict[str, str] = {}
    decided = torch.zeros(2, dtype=torch.int64)
    if problem.ranks.first:
        problem, reasons = _resolved(problem, plan)
        backend = cast(BackendName, problem.backend)
        decided = torch.tensor([_PRECISIONS.index(problem.precision), _BACKENDS.index(backend)])
    problem.ranks.broadcast_([decided])
    if not problem.ranks.first:
        p, b = decided.tolist()
        problem, reasons = _resolved(problem.with_compute(precision=_PRECISIONS[p], backend=_BACKENDS[b]), None)
    return problem, reasons


def _resolved(problem: Problem, plan: Plan | None) -> tuple[Problem, dict[str, str]]:
    compute = problem.config.compute
    images = problem.batches(problem.split.train, "choices", _subdomains(problem)).first()
    networks, obstacles = _backends(problem, images, plan)
    precisions: list[PrecisionName] = [*_PRECISIONS] if compute.precision == "auto" else [compute.precision]
    candidates = {
        f"{precision} {backend}": _in_precision(precision, network, images)
        for precision in precisions
        for backend, network in networks.items()
    }
    precision, backend, reasons = _decide(problem, candidates, images)
    reasons["backend"] = "; ".join([reasons["backend"], *obstacles])
    chosen = {"precision": precision, "backend": backend, "device": problem.device.type}
    resolved = problem.config.model_copy(update={"compute": compute.model_copy(update=chosen)})
    return problem.with_config(resolved), reasons


def _decide(
    problem: Problem, candidates: Mapping[str, Callable[[], object]], images: Inputs
) -> tuple[str, str, dict[str, str]]:
    seconds = {next(iter(candidates)): 1.0}
    if len(candidates) == 1:
        measure(candidates, rounds=0)  # vmap does not know all operators in all precisions
    else:
        (module,) = problem.local_modules(indices=[0])
        example = images.parts[0] if isinstance(images, Subimages) else images
        about = [problem.config.decomposition, problem.groups[0], *network_key(module, example)]
        _, seconds = fastest(candidates, about)
    best = min(seconds, key=lambda name: seconds[name])
    precision, backend = best.split()

    def against(others: list[str]) -> str:
        measured = [f"{seconds[o] / seconds[best]:.2f}x as fast as {o}" for o in others if o in seconds and o != best]
        return f"measured {', '.join(measured)}" if measured else "as asked"

    same_backend = [name for name in seconds if name.split()[1] == backend]
    same_precision = [name for name in seconds if name.split()[0] == precision]
    return (
        precision,
        backend,
        {
            "precision": f"{precision}: {against(same_backend)}".replace(f" {backend}", ""),
            "backend": f"{backend}: {against(same_precision)}".replace(f" {precision}", ""),
        },
    )


def _backends(problem: Problem, images: Inputs, plan: Plan | None) -> tuple[dict[BackendName, LocalCNNs], list[str]]:
    """Return local CNNs for each backend that is possible, proved equal to the loop; and why the others are not."""
    asked, indices = problem.backend, problem.groups[0]
    if asked == "auto" and math.prod(problem.config.decomposition.grid) == 1:
        asked = "looped"
    networks: dict[BackendName, LocalCNNs] = {}
    obstacles = []
    for backend in _BACKENDS if asked == "auto" else [asked]:
        if plan is not None and backend in plan.too_large:
            obstacles.append(f"{backend} would need more memory than there may be")
            continue
        try:
            modules = problem.local_modules(indices=indices)
            example = None if plan is not None and backend in plan.proved else images
            networks[backend] = problem.local_cnns(modules, indices, backend=backend, example=example)
        except FusionError as error:
            if asked == backend:
                raise
            obstacles.append(str(error).partition("; use")[0])
    return networks, obstacles


def _subdomains(problem: Problem) -> tuple[Subdomain, ...]:
    every = problem.decomposition.subdomains(problem.dataset.image_size)
    return tuple(every[i] for i in problem.groups[0])


def _in_precision(precision: PrecisionName, network: LocalCNNs, images: Inputs) -> Callable[[], None]:
    run = training_step(network, images)

    def timed() -> None:
        with torch.random.fork_rng(devices=[]), autocast(precision, images.device):  # dropout draws
            run()

    return timed


def alone_seconds(problem: Problem, network: LocalCNNs, n: int) -> float:
    """Return the seconds of a training step of one local CNN that has the device to itself."""
    alone = problem.local_cnns([network.extract(n)], indices=[network.indices[n]])
    images = problem.batches(problem.split.train, "choices", alone.subdomains).first()
    return statistics.median(measure({0: _in_precision(problem.precision, alone, images)})[0])

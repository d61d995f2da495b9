"""What ``auto`` means on this machine: measured once, on the real shapes, then recorded in the run."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from torch import Tensor

from ddcnn.errors import FusionError
from ddcnn.fusion import LocalCNNs
from ddcnn.fusion.choice import difference, measure, training_step
from ddcnn.strategies.problem import Problem
from ddcnn.training.precision import PrecisionName, autocast

_TOLERANCE = 1e-6  # relative, in float64

Choice = tuple[PrecisionName, str]


def resolve(problem: Problem) -> tuple[Problem, dict[str, str]]:
    """Decide what is left at ``auto``: the precision, and the backend of the local CNNs.

    A few training steps of all local CNNs are timed for each combination. bfloat16 is a candidate because it has the
    range of float32; where the processor has no instructions for it, it loses the measurement.

    Returns
    -------
    problem
        Whose configuration has nothing left at ``auto``.
    reasons
        One line each for ``"precision"`` and ``"backend"``.

    Raises
    ------
    FusionError
        ``fused`` was asked for, but is not possible.
    """
    compute = problem.config.compute
    images, _ = next(problem.batches(problem.split.train, "choices").shuffled(1))
    networks, reason = _backends(problem, images)
    precisions: list[PrecisionName] = ["float32", "bfloat16"] if compute.precision == "auto" else [compute.precision]
    candidates: dict[Choice, Callable[[], object]] = {
        (precision, backend): _in_precision(precision, network, images)
        for precision in precisions
        for backend, network in networks.items()
    }
    best, reasons = _decide(candidates, reason)
    chosen = {"precision": best[0], "backend": best[1], "device": problem.device.type}
    resolved = problem.config.model_copy(update={"compute": compute.model_copy(update=chosen)})
    return problem.with_config(resolved), reasons


def _decide(candidates: dict[Choice, Callable[[], object]], reason: str) -> tuple[Choice, dict[str, str]]:
    if len(candidates) == 1:
        (best,) = candidates
        return best, {"precision": f"{best[0]}: as asked", "backend": f"{best[1]}: {reason or 'as asked'}"}
    seconds = {choice: min(times) for choice, times in measure(candidates).items()}
    best = min(seconds, key=lambda choice: seconds[choice])

    def against(position: int) -> str:
        others = [c for c in seconds if c[position] != best[position] and c[1 - position] == best[1 - position]]
        if not others:
            return ""
        return f"measured {seconds[others[0]] / seconds[best]:.2f}x as fast as {others[0][position]}"

    return best, {
        "precision": f"{best[0]}: {against(0) or 'as asked'}",
        "backend": f"{best[1]}: {against(1) or reason or 'as asked'}",
    }


def _backends(problem: Problem, images: Tensor) -> tuple[dict[str, LocalCNNs], str]:
    asked = problem.backend
    looped = problem.local_cnns(problem.local_modules(), backend="looped")
    if asked == "looped":
        return {"looped": looped}, ""
    try:
        fused = problem.local_cnns(problem.local_modules(), backend="fused")
    except FusionError as error:
        if asked == "fused":
            raise
        return {"looped": looped}, str(error)
    if (largest := difference(fused, looped, images)) > _TOLERANCE:
        reason = f"the fused networks differ from the loop by {largest:.1e}, relative"
        if asked == "fused":
            raise FusionError(f"{reason}; use backend='looped' or 'auto'")
        return {"looped": looped}, reason
    return ({"fused": fused} if asked == "fused" else {"fused": fused, "looped": looped}), ""


def _in_precision(precision: PrecisionName, network: LocalCNNs, images: Tensor) -> Callable[[], None]:
    run = training_step(network, images)

    def timed() -> None:
        with autocast(precision, images.device):
            run()

    return timed


def alone_seconds(problem: Problem, network: LocalCNNs, n: int) -> float:
    """Return the seconds of a training step of one local CNN that has the device to itself."""
    images, _ = next(problem.batches(problem.split.train, "choices").shuffled(1))
    index = network.indices[n]
    alone = problem.local_cnns([network.extract(n)], indices=[index])
    return statistics.median(measure({0: _in_precision(problem.precision, alone, images)})[0])

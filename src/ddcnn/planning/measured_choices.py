"""What ``auto`` means on this machine: precision and backend, measured on the real shapes, recorded in the run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from ddcnn.data.batch import Inputs
from ddcnn.data.training_data import TrainingData
from ddcnn.decomposition import Subimages
from ddcnn.engines import Ranks
from ddcnn.errors import ConfigError, FusionError
from ddcnn.fusion import BackendName
from ddcnn.fusion.backend_choice import fastest, measure, network_key, remembered, training_step
from ddcnn.models import LocalCNNs
from ddcnn.network_factory import NetworkFactory
from ddcnn.planning.bfloat16 import obstacle_to_bfloat16
from ddcnn.planning.compute import ComputePlan
from ddcnn.planning.memory import MemoryPlan
from ddcnn.seeds import own_random_numbers
from ddcnn.training import PrecisionName, autocast

_BACKENDS: tuple[BackendName, ...] = ("fused", "vmapped", "looped")
_PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")
_ROUNDS = 5  # turns of all candidates
_SHARE = 0.05  # of the time of a run that measuring may take


class Candidate(NamedTuple):
    """One way to compute."""

    precision: PrecisionName
    backend: BackendName

    def __str__(self) -> str:
        """Return it as it is remembered."""
        return f"{self.precision} {self.backend}"


def choose_fastest(
    data: TrainingData,
    networks: NetworkFactory,
    compute: ComputePlan,
    ranks: Ranks,
    memory: MemoryPlan | None = None,
    *,
    steps: int | None = None,
) -> tuple[ComputePlan, dict[str, str]]:
    """Decide what is left at ``auto``: the precision, and the backend of the local CNNs.

    A few training steps of the local CNNs that are trained at once are timed for each combination. bfloat16 is a
    candidate because it has the range of float32; where the processor has no instructions for it, it loses the
    measurement. Rank 0 decides for all ranks; each proves for its own local CNNs that they can do it.

    In a short run, of which measuring would take more than a twentieth, nothing is measured: what was the fastest
    another time is taken, or else float32, and fused where that is possible.

    Parameters
    ----------
    memory
        Backends for which it leaves no memory are no candidates.
    steps
        About how many such training steps the run will take; None: it is worth while to measure.

    Returns
    -------
    compute
        With nothing left at ``auto``.
    reasons
        One line each for ``"precision"`` and ``"backend"``.

    Raises
    ------
    ConfigError
        bfloat16 was asked for, but some convolution would be trained wrongly.
    FusionError
        ``fused`` was asked for, or decided by rank 0, but is not possible.
    """
    reasons: dict[str, str] = {}
    decided = torch.zeros(2, dtype=torch.int64)
    if ranks.first:
        precision = compute.config.precision
        wrong = "" if precision == "float32" else obstacle_to_bfloat16(networks.examples(), compute.device)
        if wrong and precision == "bfloat16":
            raise ConfigError(f"compute.precision = bfloat16 cannot be used: {wrong}; use float32 or auto")
        compute = compute.with_(precision="float32") if wrong else compute
        compute, reasons = _chosen(data, networks, compute, ranks, memory, steps)
        if wrong:
            reasons["precision"] = f"float32: {wrong}"
        backend = cast(BackendName, compute.backend)
        decided = torch.tensor([_PRECISIONS.index(compute.precision), _BACKENDS.index(backend)])
    ranks.broadcast_([decided])
    if not ranks.first:
        p, b = decided.tolist()
        asked = compute.with_(precision=_PRECISIONS[p], backend=_BACKENDS[b])
        compute, reasons = _chosen(data, networks, asked, ranks, None, None)
    return compute, reasons


def seconds_alone(
    data: TrainingData, networks: NetworkFactory, compute: ComputePlan, local: LocalCNNs, n: int, steps: int
) -> float:
    """Return the seconds of a training step, of so many, of one local CNN that has the device to itself."""
    alone = networks.local_cnns([local.indices[n]], backend=compute.backend, modules=[local.extract(n)])
    images = data.batches(data.split.train, alone.subdomains, purpose="choices").first()
    return statistics.median(measure({0: _timed(compute.precision, alone, images, steps)})[0])


def _chosen(
    data: TrainingData,
    networks: NetworkFactory,
    compute: ComputePlan,
    ranks: Ranks,
    memory: MemoryPlan | None,
    steps: int | None,
) -> tuple[ComputePlan, dict[str, str]]:
    indices = compute.groups(ranks.owned(len(networks.decomposition)))[0]
    subdomains = [networks.subdomains[n] for n in indices]
    images = data.batches(data.split.train, subdomains, purpose="choices").first()
    assert isinstance(images, Subimages)
    key = network_key(networks.local_module(indices[0]), images.parts[0])
    about = [networks.config.decomposition, indices, *key]
    precisions = _PRECISIONS if compute.config.precision == "auto" else (compute.precision,)
    backends = _candidates(networks, compute, memory)
    named = [Candidate(p, b) for p in precisions for b in backends]
    rounds = _affordable(len(named), steps)
    if len(named) > 1 and not rounds:
        return _unmeasured(networks, compute, indices, images, named, remembered(map(str, named), about))
    possible, obstacles = _possible(networks, compute, indices, images, memory)
    timed = None if len(precisions) * len(possible) > 1 else 1  # steps; a single candidate is tried once
    candidates = {
        Candidate(p, b): _timed(p, network, images, timed) for p in precisions for b, network in possible.items()
    }
    if len(candidates) == 1:
        measure(candidates, rounds=0)  # vmap does not know all operators in all precisions
        seconds = dict.fromkeys(candidates, 1.0)
    else:
        seconds = _measured(candidates, about, rounds or 1)
    best = min(seconds, key=lambda candidate: seconds[candidate])
    return _with(compute, best), _reasons(best, seconds, obstacles)


def _affordable(candidates: int, steps: int | None) -> int:
    """Return how many turns of all candidates, after one to warm up, take at most a twentieth of a run; 5 at most.

    >>> _affordable(6, steps=28), _affordable(6, steps=480), _affordable(6, steps=None)
    (0, 3, 5)
    """
    if steps is None:
        return _ROUNDS
    return max(0, min(_ROUNDS, int(_SHARE * steps / max(1, candidates)) - 1))


def _candidates(networks: NetworkFactory, compute: ComputePlan, memory: MemoryPlan | None) -> tuple[BackendName, ...]:
    """Return the backends to choose from, of which some may turn out not to be possible."""
    if compute.backend != "auto":
        return (compute.backend,)
    if len(networks.decomposition) == 1:
        return ("looped",)
    return tuple(b for b in _BACKENDS if memory is None or b not in memory.too_large)


def _unmeasured(
    networks: NetworkFactory,
    compute: ComputePlan,
    indices: Sequence[int],
    images: Subimages,
    named: Sequence[Candidate],
    seconds: Mapping[str, float],
) -> tuple[ComputePlan, dict[str, str]]:
    """Decide for a short run: the fastest of those remembered, or else float32, and fused where that is possible."""
    known = sorted((one for one in named if str(one) in seconds), key=lambda one: seconds[str(one)])
    why = "the fastest, measured before" if known else "the run is too short to measure others"
    obstacles: list[str] = []
    usual = sorted(named, key=lambda one: one.backend == "vmapped")  # which is slower than the loop as often as not
    for candidate in (*known, *usual, Candidate(named[0].precision, "looped")):
        chosen = _with(compute, candidate)
        try:
            (network,) = _possible(networks, chosen, indices, images, None)[0].values()
            measure({candidate: _timed(candidate.precision, network, images, 1)}, rounds=0)
        except FusionError as error:
            if candidate.backend in (compute.backend, "looped"):
                raise
            obstacles.append(str(error).partition("; use")[0])
            continue
        precision = why if compute.config.precision == "auto" else "as asked"
        backend = "; ".join([why if compute.backend == "auto" else "as asked", *obstacles])
        return chosen, {
            "precision": f"{candidate.precision}: {precision}",
            "backend": f"{candidate.backend}: {backend}",
        }
    raise AssertionError("the loop over local CNNs is always possible")


def _with(compute: ComputePlan, best: Candidate) -> ComputePlan:
    asked = compute.config.device
    device = asked if ":" in asked else compute.device.type  # of ranks that were given none, each takes its own again
    return compute.with_(precision=best.precision, backend=best.backend, device=device)


def _measured(
    candidates: Mapping[Candidate, Callable[[], object]], about: Sequence[object], rounds: int
) -> dict[Candidate, float]:
    _, seconds = fastest({str(candidate): run for candidate, run in candidates.items()}, about, rounds=rounds)
    return {candidate: seconds[str(candidate)] for candidate in candidates if str(candidate) in seconds}


def _reasons(best: Candidate, seconds: Mapping[Candidate, float], obstacles: Sequence[str]) -> dict[str, str]:
    def against(others: Mapping[Any, Candidate]) -> str:
        ratios = [
            f"{seconds[other] / seconds[best]:.2f}x as fast as {name}"
            for name, other in others.items()
            if other in seconds and other != best
        ]
        return f"measured {', '.join(ratios)}" if ratios else "as asked"

    precisions = {p: Candidate(p, best.backend) for p in _PRECISIONS}
    backends = {b: Candidate(best.precision, b) for b in _BACKENDS}
    return {
        "precision": f"{best.precision}: {against(precisions)}",
        "backend": "; ".join([f"{best.backend}: {against(backends)}", *obstacles]),
    }


def _possible(
    networks: NetworkFactory,
    compute: ComputePlan,
    indices: Sequence[int],
    images: Inputs,
    memory: MemoryPlan | None,
) -> tuple[dict[BackendName, LocalCNNs], list[str]]:
    """Return local CNNs for each backend that is possible, proved equal to the loop; and why the others are not."""
    assert isinstance(images, Subimages)
    asked = compute.backend
    if asked == "auto" and len(networks.decomposition) == 1:
        asked = "looped"
    possible: dict[BackendName, LocalCNNs] = {}
    obstacles = []
    for backend in _BACKENDS if asked == "auto" else [asked]:
        if memory is not None and backend in memory.too_large:
            obstacles.append(f"{backend} would need more memory than there may be")
            continue
        try:
            possible[backend] = networks.local_cnns(indices, backend=backend, example=images)
        except FusionError as error:
            if asked == backend:
                raise
            obstacles.append(str(error).partition("; use")[0])
    return possible, obstacles


def _timed(precision: PrecisionName, network: LocalCNNs, images: Inputs, steps: int | None) -> Callable[[], None]:
    run = training_step(network, images, steps=steps)

    def timed() -> None:
        with own_random_numbers(), autocast(precision, images.device):  # dropout draws
            run()

    return timed

"""Which backend is fastest? Measured on the real shapes, a few training steps each, and remembered."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ddcnn.atomic import write_atomic
from ddcnn.decomposition import Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion.body import StackedBody
from ddcnn.fusion.recorded import PASSES
from ddcnn.fusion.structural_equality import structure
from ddcnn.machine import cache_folder, device_name
from ddcnn.seeds import own_random_numbers
from ddcnn.strict import parse_json

Name = TypeVar("Name")

_MOST = 2**20  # bytes of the file of measurements: some thousands; a larger one is begun anew
_FORM = "recorded"  # how candidates run; what was measured otherwise is not to be remembered
_HOPELESS = 2.0  # times the fastest: measured once, not five times
_log = logging.getLogger(__name__)


def measure(candidates: Mapping[Name, Callable[[], object]], *, rounds: int = 5) -> dict[Name, list[float]]:
    """Return the seconds of each candidate, run in turns, after one turn as a warm-up.

    What raises a `FusionError` has no times. What is far slower than the fastest in the first counted turn runs no
    more. To choose, take the minimum: whatever else the machine does only ever adds time.
    """
    running = dict(candidates)
    for name, run in candidates.items():
        try:
            run()
        except FusionError:
            if len(running) == 1:
                raise
            del running[name]
    times: dict[Name, list[float]] = {name: [] for name in running}
    for turn in range(rounds):
        for name, run in running.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        if not turn:
            best = min(min(seconds) for seconds in times.values())
            running = {name: run for name, run in running.items() if min(times[name]) <= _HOPELESS * best}
    return times


def fastest(
    candidates: Mapping[str, Callable[[], object]], about: Sequence[object], *, rounds: int = 5
) -> tuple[str, dict[str, float]]:
    """Return the name of the fastest candidate, and the seconds of each: measured, or remembered from another time.

    Parameters
    ----------
    candidates
        Names and what to time.
    about
        All that the times depend on beside the machine and the versions: see `network_key`.
    rounds
        As in `measure`.
    """
    seconds = remembered(candidates, about)
    if not seconds:
        gpu = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_initialized() else None
        with own_random_numbers(gpu):
            seconds = {name: min(times) for name, times in measure(candidates, rounds=rounds).items()}
        _remember(_key(candidates, about), seconds)
    return min(seconds, key=lambda name: seconds[name]), seconds


def remembered(candidates: Iterable[str], about: Sequence[object]) -> dict[str, float]:
    """Return the seconds of candidates of these names, as `fastest` measured them another time; none if it did not."""
    names = set(candidates)
    seconds = _remembered().get(_key(names, about), {})
    return seconds if seconds.keys() <= names else {}


def _key(names: Iterable[str], about: Sequence[object]) -> str:
    facts = [_FORM, *map(str, about), *sorted(names), torch.__version__, torch.get_num_threads()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def network_key(network: nn.Module, example: Tensor) -> list[object]:
    """Return what the time of a training step depends on."""
    return [structure(network), tuple(example.shape), example.dtype, device_name(example.device)]


def ratio(seconds: Mapping[str, float], best: str) -> str:
    """Return in words how much faster the fastest is.

    >>> ratio({"fused": 1.0, "looped": 2.5}, "fused")
    'measured 2.50x as fast as looped'
    """
    others = sorted((name for name in seconds if name != best), key=lambda name: seconds[name])
    return ", ".join(f"{seconds[name] / seconds[best]:.2f}x as fast as {name}" for name in others[::-1]).join(
        ("measured ", "") if others else ("", "")
    )


def _file() -> Path:
    return cache_folder() / "backends.json"


def _remembered() -> dict[str, dict[str, float]]:
    """Return the measurements of other times; none where there is something else than the file that we write."""
    path = _file()
    try:
        if not path.is_file() or path.stat().st_size > _MOST:  # to open a FIFO would wait for ever
            return {}
        known = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if _are_seconds(v)} if isinstance(known, dict) else {}


def _are_seconds(values: Any) -> bool:
    return isinstance(values, dict) and len(values) > 0 and all(isinstance(s, float) and s > 0 for s in values.values())


def _remember(key: str, seconds: dict[str, float]) -> None:
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(_remembered() | {key: seconds}, indent=1).encode())
    except OSError as error:  # a cache that cannot be written costs time, not results
        _log.warning("the measurement of backends cannot be kept in %s: %s", path, error)


def training_step(network: nn.Module, example: Tensor | Subimages, *, steps: int | None = None) -> Callable[[], None]:
    """Return a function that runs the network forward and backward in train mode, and waits for the device.

    A fused network is recorded in its first pass, to be timed as it runs in most of a training of so many steps; None:
    a long one. It moves running statistics: give it a copy of what is still needed.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, StackedBody) and (steps is None or steps >= 2 * PASSES):
            module.recorded.after = 1

    def run() -> None:
        network(example).float().square().mean().backward()
        network.zero_grad(set_to_none=True)
        if example.device.type == "cuda":
            torch.cuda.synchronize(example.device)

    return run

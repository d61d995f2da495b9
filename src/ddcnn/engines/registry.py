"""Engines by name."""

from __future__ import annotations

from collections.abc import Callable

from ddcnn.config import ComputeConfig
from ddcnn.engines.in_process import InProcess
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.processes import Processes
from ddcnn.engines.task import Engine
from ddcnn.errors import EngineError
from ddcnn.registry import Registry, called

Builder = Callable[[ComputeConfig, str], Engine]

ENGINES: Registry[Builder] = Registry(
    "engine",
    EngineError,
    {
        "in_process": lambda _compute, _device: InProcess(),
        "processes": lambda compute, device: Processes(
            compute.workers, threads=compute.threads, device=device, retries=compute.retries
        ),
        "ray": lambda compute, device: OnRay(
            compute.workers,
            threads=compute.threads,
            device=device,
            retries=compute.retries,
            address=compute.ray_address,
        ),
    },
    adapt=called("engine", EngineError),
)


def build_engine(compute: ComputeConfig, device: str) -> Engine:
    """Return the engine that a configuration names, for a device of this kind.

    Raises
    ------
    EngineError
        It is unknown, or cannot be had here.
    """
    return ENGINES.find(compute.engine)(compute, device)

"""Engines by name."""

from __future__ import annotations

from ddcnn.config import ComputeConfig
from ddcnn.engines.in_process import InProcess
from ddcnn.engines.on_ray import OnRay
from ddcnn.engines.processes import Processes
from ddcnn.engines.task import Engine


def build_engine(compute: ComputeConfig, device: str) -> Engine:
    """Return the engine that a configuration names, for a device of this kind.

    Raises
    ------
    EngineError
        It cannot be had here.
    """
    if compute.engine == "in_process":
        return InProcess()
    if compute.engine == "processes":
        return Processes(compute.workers, threads=compute.threads, device=device, retries=compute.retries)
    return OnRay(
        compute.workers,
        threads=compute.threads,
        device=device,
        retries=compute.retries,
        address=compute.ray_address,
    )

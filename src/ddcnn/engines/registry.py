"""Engines by name."""

from __future__ import annotations

from ddcnn.config import ComputeConfig
from ddcnn.engines.in_process import InProcess
from ddcnn.engines.processes import Processes
from ddcnn.engines.task import Engine


def build_engine(compute: ComputeConfig, device: str) -> Engine:
    """Return the engine that a configuration names, for a device of this kind."""
    if compute.engine == "in_process":
        return InProcess()
    return Processes(compute.workers, threads=compute.threads, device=device, retries=compute.retries)

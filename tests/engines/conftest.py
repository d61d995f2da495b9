from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.engines.on_ranks import PATHS, RAY
from tests.experiments.conftest import source
from tests.forked import Program

__all__ = ["cluster", "source"]

CLUSTER = """
import signal, sys
from ray.cluster_utils import Cluster
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
try:
    print(cluster.address, flush=True)
    signal.pause()
finally:
    cluster.shutdown()
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of this machine."""
    program = Program(("-c", CLUSTER), os.environ | RAY | {"PYTHONPATH": PATHS})
    try:
        program.wait_for("\n", "stdout")
        yield program.stdout.read_text().strip()
        program.send_signal(signal.SIGTERM)
        program.communicate(60)
    finally:
        program.kill()

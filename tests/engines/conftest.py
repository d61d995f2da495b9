from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.engines.on_ranks import PATHS, RAY
from tests.experiments.conftest import source
from tests.forked import Program

__all__ = ["cluster", "source"]

CLUSTER = """
import signal, sys
from ray.cluster_utils import Cluster
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
try:
    cluster.add_node(num_cpus=2)
    doomed = cluster.add_node(num_cpus=1)
    signal.signal(signal.SIGUSR1, lambda *_: cluster.remove_node(doomed, allow_graceful=False))
    print(cluster.address, flush=True)
    while True:
        signal.pause()
finally:
    cluster.shutdown()
"""


class SharedCluster(NamedTuple):
    """A Ray cluster of this machine: a node of two cores, and one of one core that dies on SIGUSR1 to its process."""

    address: str
    pid: int


@pytest.fixture(scope="session")
def cluster() -> Iterator[SharedCluster]:
    """One for all tests: only that in which a node dies needs the third core."""
    program = Program(("-c", CLUSTER), os.environ | RAY | {"PYTHONPATH": PATHS})
    try:
        program.wait_for("\n", "stdout")
        yield SharedCluster(program.stdout.read_text().strip(), program.pid)
        program.send_signal(signal.SIGTERM)
        program.communicate(60)
    finally:
        program.kill()

"""Ray: the same local CNNs as in one process, on nodes that share no disk, also when one of them dies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bars import write_bars
from tests.engines.conftest import SharedCluster
from tests.engines.on_ranks import RAY, ended, start

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def results(cluster: SharedCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ray")
    where = (write_bars(folder, (8, 12)), str(folder), cluster.address, str(cluster.pid))
    command = ("-m", "tests.engines.on_cluster", *where)
    ((code, out, err),) = ended(start(1, *command, **RAY), 300)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.slow
def test_workers_that_see_our_disk_give_the_same(results: dict[str, Any]) -> None:
    assert results["shared"]
    assert results["shared began"] == {"local/subdomains 0-1": 1, "local/subdomains 2-3": 1}
    assert results["shared files"]  # they have left their checkpoints there


@pytest.mark.slow
def test_a_node_that_dies_costs_its_task_a_new_start_and_nothing_else(results: dict[str, Any]) -> None:
    assert results["apart"]
    began = results["apart began"]
    assert len(began) == 4
    assert sorted(began.values()) == [1, 1, 1, 2]

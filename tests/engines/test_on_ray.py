"""Ray: the same local CNNs as in one process, on nodes that share no disk, also when one of them dies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddcnn.engines import Failure
from ddcnn.engines.on_ray import _Board
from ddcnn.errors import EngineError
from ddcnn.training import Progress
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


class LostError(Exception):
    pass


class SmallRay:
    """What a board asks of Ray, in this process: tasks that are done, and results that are lost so many times."""

    exceptions = SimpleNamespace(RayError=LostError)

    def __init__(self, losses: int) -> None:
        self.losses, self.done = losses, 0

    def remote(self, function: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.do))

    def do(self, *_: Any) -> str:
        self.done += 1
        return f"task {self.done}"

    def put(self, value: Any) -> Any:
        return value

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if reference == "chunk":
            if self.done <= self.losses:
                raise LostError("its owner has died")
            return b"result"
        return ("sent", ["chunk"]) if isinstance(reference, str) else reference

    def kill(self, actor: Any) -> None:
        pass


def board(small: SmallRay, kept: list[bytes], folder: Path) -> _Board:
    """Return a board with one task, whose result is put into a list."""
    take = SimpleNamespace(take=SimpleNamespace(remote=list))
    engine: Any = SimpleNamespace(
        _ray=small, workers=1, retries=1, device="cpu", threads=1, mailbox=lambda: take, options=dict
    )
    task: Any = SimpleNamespace(
        name="local/subdomain 0",
        inputs=SimpleNamespace(pack=lambda _: SimpleNamespace(arrays={}, numbers={})),
        arguments={},
        order=dict,
        checkpoints=SimpleNamespace(put=lambda content, _: kept.append(content)),
        collected=lambda: kept or None,
    )
    return _Board(engine, [task], Progress(), folder)


@pytest.mark.parametrize("losses", [0, 1, 2])
def test_a_node_that_dies_when_its_task_is_done_costs_a_new_start_too(tmp_path: Path, losses: int) -> None:
    """What it has sent is gone with it, before it was fetched."""
    small, kept = SmallRay(losses), list[bytes]()
    (failure,) = board(small, kept, tmp_path).run()
    assert small.done == min(losses, 1) + 1
    if losses < 2:
        assert (failure, kept) == (None, [b"result"])
    else:
        assert failure == Failure("local/subdomain 0", "its worker is gone: its owner has died")


def test_what_is_not_of_one_task_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, told = SmallRay(0), ("ended", ["image 7 cannot be read", False])
    monkeypatch.setattr(small, "get", lambda one: told if isinstance(one, str) else one)
    with pytest.raises(EngineError, match=r"^local/subdomain 0: image 7 cannot be read$"):
        board(small, [], tmp_path).run()

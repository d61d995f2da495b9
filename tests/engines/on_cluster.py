"""Local CNNs trained on a Ray cluster of this machine; prints what came of it as JSON. A process of its own: Ray leaves
threads and settings behind.

    python -m tests.engines.on_cluster DATA FOLDER ADDRESS PID     # of the cluster, see `tests/engines/conftest.py`
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch

from ddcnn.engines import Engine, InProcess, OnRay, on_ray
from ddcnn.planning import Setup
from ddcnn.strategies.local import LocalResult
from ddcnn.training import Progress, Workspace
from tests.setups import decided, train_local


class Watcher(Progress):
    """Counts how often each task began, and does something once, when all that can have begun."""

    def __init__(self, function: Callable[[], None] = lambda: None, after: int = 1) -> None:
        self.began: dict[str, int] = {}
        self.notes: list[str] = []
        self.function, self.after = function, after

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.began[stage] = self.began.get(stage, 0) + 1
        if len(self.began) >= self.after:
            function, self.function = self.function, lambda: None
            function()

    def note(self, text: str) -> None:
        self.notes.append(text)


def problem(source: str, group: int, epochs: int) -> Setup:
    values: dict[str, Any] = {
        "data": {"source": source},
        "decomposition": {"grid": "2x2", "overlap": 1},
        "model": {"name": "tests.engines.broken:tiny"},
        "training": {"epochs": epochs, "batch_size": 20, "lr": 0.05, "shift": 1, "flip": True},
        "compute": {"device": "cpu", "precision": "float32", "backend": "fused", "group": group},
    }
    return decided(values)


def states(local: LocalResult) -> list[dict[str, torch.Tensor]]:
    return [local.network.member_state(n) for n in range(local.network.members)]


def same(a: LocalResult, b: LocalResult) -> bool:
    return all(torch.equal(x[k], y[k]) for x, y in zip(states(a), states(b), strict=True) for k in x)


def on(engine: Engine, p: Setup, folder: Path, watcher: Watcher) -> LocalResult:
    with engine:
        return train_local(p, engine, watcher, Workspace(folder, p.fingerprint))


def main(source: str, folder: Path, address: str, pid: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ray.init(address=address, log_to_driver=False, logging_level="error")
    results: dict[str, Any] = {}

    p = problem(source, 1, 200)
    expected = train_local(p, InProcess(), Progress())
    token, on_ray._TOKEN = on_ray._TOKEN, "not where workers look"  # as if the nodes shared no disk
    watcher = Watcher(lambda: os.kill(pid, signal.SIGUSR1), after=3)  # comes first: all workers start at the same time
    results["apart"] = same(on(OnRay(3, threads=1, retries=2), p, folder / "apart", watcher), expected)
    results["apart began"] = watcher.began

    on_ray._TOKEN = token
    p, watcher = problem(source, 2, 2), Watcher()
    expected = train_local(p, InProcess(), Progress())
    results["shared"] = same(on(OnRay(2, threads=1), p, folder / "shared", watcher), expected)
    results["shared began"] = watcher.began
    results["shared files"] = [f.name[:10] for f in sorted((folder / "shared").rglob("*.safetensors"))]
    ray.shutdown()
    return results


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))

"""Train on a Ray cluster: one that runs somewhere, or one that is started here.

Ray is for trusted networks: it passes Python objects between machines, and whoever reaches its ports can run code. What
goes to a worker are numbers, arrays and names of functions of ddcnn, which is installed there; what comes back are the
bytes of a checkpoint, which is checked as one that lies on disk.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import torch

from ddcnn.cores import usable_cores
from ddcnn.engines.events import Mailbox, TellingProgress, describe, is_of_the_task, replay_event
from ddcnn.engines.task import Failure, Task, each_once, perform
from ddcnn.engines.task_payload import TaskPayload
from ddcnn.errors import EngineError, in_one_line
from ddcnn.extras import needed
from ddcnn.training import Checkpoints, Progress
from ddcnn.training.interruption import INTERRUPTION

Result = TypeVar("Result")
_CHUNK = 2**25  # bytes of a result in one object
_AHEAD = 2  # tasks per worker that are handed over at the same time
_WAIT = 0.2  # seconds between two looks at what workers tell
_TOKEN = "token"


class OnRay:
    """A Ray cluster, whose nodes need share no disk.

    Parameters
    ----------
    workers
        Tasks at the same time; None: one per GPU or core of the cluster, as ``threads`` allow.
    threads
        Cores of each task; None: 1, or an equal share of this machine's cores if the cluster is started here.
    device
        ``"cpu"`` or ``"cuda"``.
    retries
        How often Ray does a task again whose worker or node is gone, or that could not read or write a file.
    address
        ``"auto"`` or ``"ray://host:port"``; None starts a cluster on this machine, which ends with the engine.

    Raises
    ------
    EngineError
        Ray is not installed, or there is no cluster at that address.
    """

    serial = False
    starts_ranks = True

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: int | None = None,
        device: str = "cpu",
        retries: int = 1,
        address: str | None = None,
    ) -> None:
        with needed("engine ray needs Ray", "ray", EngineError):
            import ray
            import ray.util.scheduling_strategies
        self._ray: Any = ray
        self.address, self.retries = address, retries
        self.device = "cuda" if device.startswith("cuda") else device
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(workers, threads)
        found = self._ray.cluster_resources()
        self.cores = int(found.get("CPU", 1))
        self.gpus = found.get("GPU", 0.0) if self.device == "cuda" else 0.0
        self.threads = threads or (max(1, usable_cores() // workers) if workers and not address else 1)
        self.workers = workers or int(self.gpus) or max(1, self.cores // self.threads)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._ours:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task[Result]], progress: Progress, scratch: Path | None) -> list[Result | Failure]:
        """Return results, or why there is none, in the order of the tasks; what lies on disk is not done again."""
        if scratch is None:
            raise EngineError("results from a cluster are left in the folder of a run; there is none")

        def work(waiting: Sequence[Task[Result]]) -> list[Failure | None]:
            board = _Board(self, waiting, progress, scratch)
            with INTERRUPTION.deferred(), closing(board):
                return board.run()

        return each_once(tasks, work)

    def run_on_ranks(
        self,
        count: int | None,
        function: Callable[[dict[str, Any], Progress], None],
        arguments: Mapping[str, Any],
        progress: Progress,
        shared: Path,
    ) -> None:
        """Run a function on ranks that Ray Train starts, see `ddcnn.engines.ray_train`."""
        from ddcnn.engines.ray_train import run_on_ranks

        run_on_ranks(self, count or self.workers, function, arguments, progress, shared)

    def mailbox(self) -> Any:
        """Start a `Mailbox` on this node: on one that may die it would take the news of all others with it."""
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        return self._ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()

    def options(self) -> dict[str, Any]:
        """Return what a task needs of a node, and when it is done again."""
        return {
            "num_cpus": self.threads,
            "num_gpus": min(1.0, self.gpus / self.workers) if self.gpus else 0,
            "max_retries": self.retries,
            "retry_exceptions": [OSError],
        }

    def _connect(self, workers: int | None, threads: int | None) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        handler = signal.getsignal(signal.SIGTERM)
        try:
            if self.address is not None:
                self._ray.init(address=self.address, **quiet)
            else:
                count = max(usable_cores(), (workers or 1) * (threads or 1))
                self._ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise EngineError(
                f"there is no Ray cluster at {self.address or 'this machine'}: {in_one_line(error)}; start one with "
                "ray start --head, or leave --ray-address out"
            ) from None
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end the run without a checkpoint


class _Board:
    """Tasks that are handed to a cluster, and what is known of them."""

    def __init__(self, engine: OnRay, tasks: Sequence[Task[Any]], progress: Progress, scratch: Path) -> None:
        self.engine, self.tasks, self.ray = engine, tasks, engine._ray
        self.progress = [progress.beside() for _ in tasks]
        self.failures: list[Failure | None] = [None] * len(tasks)
        self.retries = [engine.retries] * len(tasks)
        self.waiting = list(range(len(tasks)))[::-1]
        self.pending: dict[Any, int] = {}
        self.token = os.urandom(16).hex()
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / _TOKEN).write_text(self.token)
        self.mailbox = engine.mailbox()
        self.remote = self.ray.remote(perform_on_node).options(**engine.options())

    def run(self) -> list[Failure | None]:
        """Hand over tasks, a few more than there are workers, and collect them as they are done."""
        while self.waiting or self.pending:
            while self.waiting and len(self.pending) < _AHEAD * self.engine.workers:
                self._hand_over(self.waiting.pop())
            done, _ = self.ray.wait(list(self.pending), timeout=_WAIT)
            self._hear()
            for reference in done:
                i = self.pending.pop(reference)
                self.failures[i] = self._collect(i, reference)
            INTERRUPTION.check()
        self._hear()
        return self.failures

    def close(self) -> None:
        """Take back what is not done."""
        for reference in self.pending:
            self.ray.cancel(reference, force=True)
        self.ray.kill(self.mailbox)

    def _hand_over(self, i: int) -> None:
        task = self.tasks[i]
        payload = task.inputs.pack(task.arguments)
        arrays = self.ray.put(payload.arrays)
        order = task.order() | {
            "token": self.token,
            "device": self.engine.device,
            "threads": self.engine.threads,
        }
        self.pending[self.remote.remote(i, order, payload.numbers, arrays, self.mailbox)] = i

    def _hear(self) -> None:
        for i, what, values in self.ray.get(self.mailbox.take.remote()):
            replay_event(self.progress[i], what, values)

    def _collect(self, i: int, reference: Any) -> Failure | None:
        """Put the result of a task where it belongs; a worker that shares our disk has done so.

        Ray does a task again whose worker dies, but not one that was done: what its worker has sent dies with it.
        """
        task, sent = self.tasks[i], False
        assert task.checkpoints is not None
        try:
            what, values = self.ray.get(reference)
            if what == "failed":
                return Failure(task.name, *values)
            if what == "ended":
                raise EngineError(f"{task.name}: {values[0]}")
            if sent := what == "sent":
                content = b"".join(self.ray.get(chunk) for chunk in values)
                task.checkpoints.put(content, 1)
        except self.ray.exceptions.RayError as error:
            if sent and self.retries[i]:
                self.retries[i] -= 1
                self.waiting.append(i)
                return None
            return Failure(task.name, f"its worker is gone: {in_one_line(error)}")
        if task.collected() is None:
            return Failure(task.name, "its result did not arrive whole")
        return None


def perform_on_node(
    i: int, order: dict[str, Any], numbers: dict[str, Any], arrays: dict[str, np.ndarray], mailbox: Any
) -> tuple[str, list[Any]]:
    """Do one task on a node of the cluster.

    Returns
    -------
    what, values
        ``"left"``: the result lies in the folder, which this node shares. ``"sent"``: references to its bytes, in
        chunks. ``"failed"``: the reason, and whether it would fail again; ``"ended"``: the same of what ends the run.
    """
    import ray

    torch.set_num_threads(order["threads"])
    progress = TellingProgress(lambda what, values: mailbox.put.remote(i, what, values))
    shared = Path(order["folder"])
    is_shared = _token(shared) == order["token"]
    with tempfile.TemporaryDirectory(prefix="ddcnn-") as own:
        checkpoints = Checkpoints(shared if is_shared else Path(own), order["key"], progress.note)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody writes
                perform(order, TaskPayload(numbers, arrays), checkpoints, progress)
        except OSError:
            raise  # Ray does it again
        except Exception as error:  # whatever a user's network raises is the failure of this task alone
            traceback.print_exc()
            return "failed" if is_of_the_task(error) else "ended", list(describe(error))
        if is_shared:
            return "left", []
        content = checkpoints.newest()
        return "sent", [ray.put(content[start : start + _CHUNK]) for start in range(0, len(content), _CHUNK)]


def _token(folder: Path) -> str | None:
    """Return what lies beside the checkpoints of the run, if this machine sees them."""
    try:
        return (folder.parent / _TOKEN).read_text()
    except OSError:
        return None

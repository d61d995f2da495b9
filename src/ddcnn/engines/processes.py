"""Train in worker processes of this machine: one per GPU, or per share of the cores."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from ddcnn.cores import usable_cores
from ddcnn.engines.events import replay_event
from ddcnn.engines.task import Failure, Task, each_once
from ddcnn.errors import EngineError
from ddcnn.training import Progress
from ddcnn.training.interruption import INTERRUPTION

Result = TypeVar("Result")
_GRACE = 4.0  # seconds that a worker has to write a checkpoint when it is told to end


class Processes:
    """Worker processes that share this machine's cores, or have a GPU each, and read the same mapped data.

    Parameters
    ----------
    workers
        Their number; None: one per GPU, or one per core.
    threads
        Threads of each; None: an equal share of the cores.
    device
        ``"cpu"`` or ``"cuda"``.
    retries
        How often a task that fails goes on from its checkpoint.
    """

    serial = False
    starts_ranks = False

    def __init__(
        self, workers: int | None = None, *, threads: int | None = None, device: str = "cpu", retries: int = 1
    ) -> None:
        count = usable_cores()
        gpus = torch.cuda.device_count() if device.startswith("cuda") else 0
        self.workers = workers or gpus or count
        self.threads = threads or max(1, count // self.workers)
        self.devices = [f"cuda:{i % gpus}" if gpus else device for i in range(self.workers)]
        self.retries = retries
        self._running: dict[int, _Worker] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return itself; workers start with the first tasks."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers: they write what they have, and are killed if that takes more than a few seconds."""
        self.stop()

    def run(self, tasks: Sequence[Task[Result]], progress: Progress, scratch: Path | None) -> list[Result | Failure]:
        """Return results, or why there is none, in the order of the tasks; what lies on disk is not done again."""
        if scratch is None:
            raise EngineError("worker processes leave their results in the folder of a run; there is none")

        def work(waiting: Sequence[Task[Result]]) -> list[Failure | None]:
            waiting[0].inputs.pack(None).save(scratch / "payload")
            return self._perform(waiting, progress, scratch)

        return each_once(tasks, work)

    def stop(self) -> None:
        """End all workers."""
        with self._lock:
            running = list(self._running.values())
            self._running.clear()
        for worker in running:
            worker.end()
        deadline = time.monotonic() + _GRACE
        for worker in running:
            worker.wait(deadline)

    def _perform(self, tasks: Sequence[Task[Any]], progress: Progress, scratch: Path) -> list[Failure | None]:
        failures: list[Failure | None] = [None] * len(tasks)
        errors: list[BaseException] = []
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(tasks)):
            waiting.put(i)

        def serve(number: int) -> None:
            try:
                while not errors and INTERRUPTION.signal is None:
                    i = waiting.get_nowait()
                    failures[i] = self._attempt(number, tasks[i], progress, scratch)
            except queue.Empty:
                pass
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=serve, args=(number,), name=f"ddcnn-worker-{number}", daemon=True)
            for number in range(min(self.workers, len(tasks)))
        ]
        with INTERRUPTION.deferred():
            for thread in threads:
                thread.start()
            try:
                while any(thread.is_alive() for thread in threads) and INTERRUPTION.signal is None:
                    threads[0].join(0.05) if threads[0].is_alive() else time.sleep(0.05)
            finally:
                if any(thread.is_alive() for thread in threads):
                    self.stop()
                for thread in threads:
                    thread.join()
            INTERRUPTION.check()
        if errors:
            raise errors[0]
        return failures

    def _attempt(self, number: int, task: Task[Any], progress: Progress, scratch: Path) -> Failure | None:
        """Do a task in a worker, again from its checkpoint if it fails."""
        beside = progress.beside()
        failure = None
        for attempt in range(self.retries + 1):
            worker = self._worker(number, scratch)
            failure = worker.do(task, beside, self.devices[number])
            if failure is None or failure.final or INTERRUPTION.signal is not None:
                break
            if attempt < self.retries:
                beside.note(f"{failure.name} failed ({failure.reason}); it goes on from its last checkpoint")
        return failure

    def _worker(self, number: int, scratch: Path) -> _Worker:
        with self._lock:
            worker = self._running.get(number)
            if worker is None or not worker.alive:
                if worker is not None:
                    worker.wait(0.0)
                worker = self._running[number] = _Worker(self.threads, scratch / f"worker-{number}.log")
            return worker


class _Worker:
    """A process, and the pipes to it."""

    def __init__(self, threads: int, log: Path) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ddcnn.engines.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the process that asks it to end
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def do(self, task: Task[Any], progress: Progress, device: str) -> Failure | None:
        """Return why a task could not be done; raise what is to end the run."""
        assert self._process.stdin is not None
        order = task.order() | {"payload": str(self.log.parent / "payload"), "device": device}
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            return self._gone(task.name)
        return self._listen(task.name, progress)

    def _listen(self, name: str, progress: Progress) -> Failure | None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, *values = json.loads(line)
            if what == "done":
                return None
            if what == "failed":
                return Failure(name, f"{values[0]}; see {self.log}", values[1])
            if what == "ended":
                raise EngineError(f"{name}: {values[0]}; see {self.log}")
            if what != "ready":
                replay_event(progress, what, values)
        return self._gone(name)

    def _gone(self, name: str) -> Failure:
        code = self._process.wait()
        how = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        return Failure(name, f"its worker process ended with {how}; see {self.log}")

    def end(self) -> None:
        """Ask it to end."""
        if self.alive:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end, kill it when it is too late, and close the pipes."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written yet has no reader any more
                    pipe.close()


def _signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals between the first and the last have none.

    >>> _signal_name(9), _signal_name(40)
    ('SIGKILL', '40')
    """
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)

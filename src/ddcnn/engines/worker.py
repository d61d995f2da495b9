"""A worker process: reads tasks as lines of JSON, tells how they go in lines of JSON, leaves results on disk.

    python -m ddcnn.engines.worker

Its own output goes to stderr. It ends when its input ends, that is, with the process that started it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from ddcnn.engines.task_payload import TaskPayload
from ddcnn.errors import DdcnnError, InterruptionError, TrainingError, in_one_line
from ddcnn.training import Checkpoints, Progress
from ddcnn.training.interruption import listening

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
_REFRESH = 0.25  # seconds


class JsonProgress(Progress):
    """Tells the events of a stage as lines of JSON."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._images, self._told = 0, 0.0

    def tell(self, what: str, *values: Any) -> None:
        """Write a line."""
        self._out.write(json.dumps([what, *values]) + "\n")
        self._out.flush()

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Tell."""
        self.tell("begin", stage, epochs, steps, members)

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Tell a few times a second."""
        self._images += 1
        now = time.monotonic()
        if now - self._told >= _REFRESH:
            self.tell("advance", self._images, images, *mean())
            self._images, self._told = 0, now

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell."""
        self.tell("advance", self._images, 0, 0.0, 0.0)
        self._images = 0
        self.tell("epoch", row)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell."""
        self.tell("resumed", list(rows))

    def note(self, text: str) -> None:
        """Tell."""
        self.tell("note", text)

    def end(self) -> None:
        """Tell."""
        self.tell("end")


def find(name: str) -> Callable[..., None]:
    """Return a function of ddcnn by its name, ``ddcnn.module:function``."""
    module, _, function = name.partition(":")
    assert module.startswith("ddcnn."), name
    found: Callable[..., None] = getattr(importlib.import_module(module), function)
    return found


def perform(order: dict[str, Any], wire: JsonProgress) -> None:
    """Do one task; its result is in its checkpoints."""
    checkpoints = Checkpoints(Path(order["folder"]), order["key"], wire.note)
    parcel = TaskPayload.open(Path(order["parcel"]))
    find(order["function"])(parcel, order["arguments"], checkpoints, wire, order["device"])


def describe(error: Exception) -> tuple[str, bool]:
    """Return a reason in one line, and whether the task would fail again in the same way."""
    text = in_one_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"not enough memory: {text}", False
    if isinstance(error, DdcnnError):
        return text, isinstance(error, TrainingError)
    return text if text == type(error).__name__ else f"{type(error).__name__}: {text}", False


def main() -> int:
    """Do tasks until there are no more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what others print is no event
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    busy = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)  # who wanted the result is gone

    threading.Thread(target=read, daemon=True).start()
    wire = JsonProgress(out)
    try:
        with listening():
            wire.tell("ready")
            while (order := orders.get()) is not None:
                busy.set()
                _answer(order, wire)
                busy.clear()
    except (InterruptionError, KeyboardInterrupt, BrokenPipeError):
        return STOPPED
    return 0


def _answer(order: dict[str, Any], wire: JsonProgress) -> None:
    try:
        perform(order, wire)
    except InterruptionError:
        raise
    except Exception as error:  # whatever a user's network raises is the failure of this task alone
        traceback.print_exc()
        wire.tell("failed", *describe(error))
    else:
        wire.tell("done")


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the reading thread cannot be joined while it waits

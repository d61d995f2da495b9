"""A worker process: reads tasks as lines of JSON, tells how they go in lines of JSON, leaves results on disk.

    python -m ddcnn.engines.worker

Its own output goes to stderr. It ends when its input ends, that is, with the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from ddcnn.engines.events import JsonProgress, describe, is_of_the_task
from ddcnn.engines.task import perform
from ddcnn.engines.task_payload import TaskPayload
from ddcnn.errors import InterruptionError
from ddcnn.training import Checkpoints
from ddcnn.training.interruption import listening

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
GRACE = 60.0
"""Seconds in which a step has to end when nobody is left who wants its result."""


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
            time.sleep(GRACE)
            os._exit(STOPPED)

    threading.Thread(target=read, daemon=True).start()
    progress = JsonProgress(out)
    try:
        with listening():
            progress.tell("ready")
            while (order := orders.get()) is not None:
                busy.set()
                _answer(order, progress)
                busy.clear()
    except (InterruptionError, KeyboardInterrupt, BrokenPipeError):
        return STOPPED
    return 0


def _answer(order: dict[str, Any], progress: JsonProgress) -> None:
    try:
        checkpoints = Checkpoints(Path(order["folder"]), order["key"], progress.note)
        perform(order, TaskPayload.open(Path(order["payload"])), checkpoints, progress)
    except (InterruptionError, BrokenPipeError):
        raise
    except Exception as error:  # whatever a user's network raises is the failure of this task alone
        traceback.print_exc()
        progress.tell("failed" if is_of_the_task(error) else "ended", *describe(error))
    else:
        progress.tell("done")


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the reading thread cannot be joined while it waits

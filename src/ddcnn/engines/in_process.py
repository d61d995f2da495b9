"""Train in this process, one task after the other."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ddcnn.engines.events import describe, is_of_the_task
from ddcnn.engines.task import Failure, Task
from ddcnn.errors import TrainingError, is_out_of_memory
from ddcnn.training import Progress

Result = TypeVar("Result")
_LOG = "in_process.log"


class InProcess:
    """The engine that needs nothing: tasks in turn, on this process's device."""

    workers = 1
    serial = True
    starts_ranks = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind."""

    def run(
        self,
        tasks: Sequence[Task[Result]],
        progress: Progress,
        scratch: Path | None = None,
    ) -> list[Result | Failure]:
        """Return results, or why there is none, in the order of the tasks."""
        return [_done(task, progress, scratch) for task in tasks]


def _done(task: Task[Any], progress: Progress, scratch: Path | None) -> Any:
    try:
        return task.run(progress)
    except Exception as error:  # whatever a user's network raises is the failure of this task alone
        if not is_of_the_task(error) or _is_of(error, progress):
            raise
        reason, final = describe(error)
        expected = isinstance(error, TrainingError) or is_out_of_memory(error)
        if scratch is not None and not expected:
            reason = f"{reason}; see {_logged(scratch)}"
        return Failure(task.name, reason, final)


def _is_of(error: Exception, progress: Progress) -> bool:
    """Tell whether an error was raised by who is told of the progress, and may so end the run."""
    return any(frame.f_locals.get("self") is progress for frame, _ in traceback.walk_tb(error.__traceback__))


def _logged(scratch: Path) -> Path:
    """Add the traceback of the error that is being handled to a log, and return where that is."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / _LOG).open("a", encoding="utf-8") as log:
        traceback.print_exc(file=log)
    return scratch / _LOG

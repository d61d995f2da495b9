"""Train in this process, one task after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from ddcnn.engines.task import Failure, Task
from ddcnn.errors import TrainingError, in_one_line
from ddcnn.training import Progress

Result = TypeVar("Result")


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
        scratch: Path | None = None,  # noqa: ARG002 - nothing is shared
    ) -> list[Result | Failure]:
        """Return results, or why there is none, in the order of the tasks."""
        return [_done(task, progress) for task in tasks]


def _done(task: Task[Any], progress: Progress) -> Any:
    try:
        return task.run(progress)
    except TrainingError as error:
        return Failure(task.name, str(error), final=True)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return Failure(task.name, f"not enough memory: {in_one_line(error)}")

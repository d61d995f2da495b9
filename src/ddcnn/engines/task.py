"""A task: one piece of work that needs no other, and what an engine must know to place it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from ddcnn.engines.task_payload import TaskPayload
from ddcnn.training import Checkpoints, Progress

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A pure function of its inputs, whose result lies on disk: done once, it is never done again.

    Attributes
    ----------
    name
        What messages call it.
    here
        Do it in this process.
    function, arguments
        For a worker elsewhere: ``"ddcnn.module:function"`` is called with a `TaskPayload`, the arguments (JSON),
        `Checkpoints`, whose last holds the result, a progress, and the name of a device.
    data
        Returns the parcel; True: with no more than this task needs.
    checkpoints
        Where its state and result lie; None: nowhere, and it can be done in this process only.
    collect
        Returns the result that lies there; None: it is not done.
    """

    name: str
    here: Callable[[Progress], Result]
    function: str
    arguments: Mapping[str, Any]
    data: Callable[[bool], TaskPayload]
    checkpoints: Checkpoints | None
    collect: Callable[[], Result | None]


@dataclass(frozen=True)
class Failure:
    """A task that could not be done.

    Attributes
    ----------
    name
        Of the task.
    reason
        One line.
    final
        Whether it would fail again in the same way.
    """

    name: str
    reason: str
    final: bool = False


@runtime_checkable
class Engine(Protocol):
    """Places tasks. Where a task runs changes nothing but the time.

    It is a context: workers that it started end with it.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at the same time."""

    def run(self, tasks: Sequence[Task[Result]], progress: Progress, scratch: Path | None) -> list[Result | Failure]:
        """Return results, or why there is none, in the order of the tasks; one that fails ends no other.

        ``scratch`` is a folder for what the tasks share; it goes with the run.
        """

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers."""

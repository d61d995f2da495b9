"""`Task`: a piece of work that depends on no other, in the form that every engine runs; and the protocol of engines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from ddcnn.engines.task_payload import TaskPayload
from ddcnn.training import Checkpoints, Progress

Result = TypeVar("Result")


class TaskInputs(Protocol):
    """What tasks of one kind have in common, and how it travels to a worker."""

    def pack(self, arguments: Mapping[str, Any] | None) -> TaskPayload:
        """Return it as numbers and arrays: the least that a task with these arguments needs; None: for any task."""

    @classmethod
    def unpack(cls, payload: TaskPayload, device: str) -> Self:
        """Return what was packed, for a device."""


Function = Callable[[Any, Mapping[str, Any], Checkpoints | None, Progress], Result]


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A pure function of its inputs, whose result lies on disk: done once, it is never done again.

    Attributes
    ----------
    name
        What messages call it.
    function
        A function of a module of ddcnn, of the inputs, the arguments, the checkpoints and a progress.
    inputs, arguments
        What it works on: in common with other tasks, and its own (JSON).
    checkpoints
        Where its state and result lie; None: nowhere, and it can be done in this process only.
    collect
        Returns the result that lies in its checkpoints; None: it is not done.
    """

    name: str
    function: Function[Result]
    inputs: TaskInputs
    arguments: Mapping[str, Any]
    checkpoints: Checkpoints | None
    collect: Callable[[Checkpoints], Result | None]

    def run(self, progress: Progress) -> Result:
        """Do it in this process."""
        return self.function(self.inputs, self.arguments, self.checkpoints, progress)

    def collected(self) -> Result | None:
        """Return the result, if it is done."""
        return None if self.checkpoints is None else self.collect(self.checkpoints)

    def order(self) -> dict[str, Any]:
        """Return what a worker must know, beside the payload, as JSON takes it."""
        assert self.checkpoints is not None
        return {
            "function": name_of(self.function),
            "inputs": name_of(type(self.inputs)),
            "arguments": dict(self.arguments),
            "folder": str(self.checkpoints.folder.resolve()),
            "key": self.checkpoints.key,
        }


def perform(order: Mapping[str, Any], payload: TaskPayload, checkpoints: Checkpoints, progress: Progress) -> None:
    """Do in a worker what `Task.order` says, on ``order["device"]``; its result is in the checkpoints."""
    inputs = find(order["inputs"]).unpack(payload, order["device"])
    find(order["function"])(inputs, order["arguments"], checkpoints, progress)


def name_of(thing: Any) -> str:
    """Return the name by which `find` finds a function or class of ddcnn.

    >>> find(name_of(find)) is find
    True
    """
    return f"{thing.__module__}:{thing.__qualname__}"


def find(name: str) -> Any:
    """Return a function or class of ddcnn by its name, ``ddcnn.module:name``."""
    module, _, attribute = name.partition(":")
    assert module.startswith("ddcnn."), name
    return getattr(importlib.import_module(module), attribute)


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


def each_once(
    tasks: Sequence[Task[Result]], work: Callable[[Sequence[Task[Result]]], Sequence[Failure | None]]
) -> list[Result | Failure]:
    """Return the results of tasks, or why there is none; only those are worked on whose result does not lie on disk.

    ``work`` leaves results in the checkpoints of the tasks, and returns why one could not be done, or None.
    """
    found: list[Result | Failure | None] = [task.collected() for task in tasks]
    waiting = [i for i, result in enumerate(found) if result is None]
    if waiting:
        failures = work([tasks[i] for i in waiting])
        for i, failure in zip(waiting, failures, strict=True):
            found[i] = failure or tasks[i].collected()
    assert all(result is not None for result in found)
    return [result for result in found if result is not None]


@runtime_checkable
class Engine(Protocol):
    """Places tasks. Where a task runs changes nothing but the time.

    It is a context: workers that it started end with it.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at the same time."""

    @property
    def serial(self) -> bool:
        """Whether tasks run one after the other in this process: the times of their checkpoints then add up."""

    @property
    def starts_ranks(self) -> bool:
        """Whether it is a `RankStarter`."""

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


class RankStarter(Engine, Protocol):
    """An engine that can start processes which form a process group of PyTorch."""

    def run_on_ranks(
        self,
        count: int | None,
        function: Callable[[dict[str, Any], Progress], None],
        arguments: Mapping[str, Any],
        progress: Progress,
        shared: Path,
    ) -> None:
        """Run a function of ddcnn in processes that form a process group of PyTorch, until all have returned.

        Parameters
        ----------
        count
            Their number; None: as many as there is room for.
        function, arguments
            It is called in each with the arguments (JSON) and a progress; what the first one tells is passed on.
        shared
            A folder that all see.
        """

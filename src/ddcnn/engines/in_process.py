"""Train in this process, one task after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

Task = TypeVar("Task")
Result = TypeVar("Result")


@runtime_checkable
class Engine(Protocol):
    """Places tasks. A task is a value, and what is done with it a pure function: where it runs changes nothing."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""


class InProcess:
    """The engine that needs nothing: tasks in turn, on this process's device."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""
        return [function(task) for task in tasks]

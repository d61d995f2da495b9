"""Events of a training that runs elsewhere: told as lines of JSON or into a mailbox, and replayed here."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any

from ddcnn.errors import DdcnnError, TrainingError, in_one_line, is_out_of_memory
from ddcnn.training import Progress

_REFRESH = 0.25  # seconds


class TellingProgress(Progress):
    """Tells the events of a stage to a function ``(what, values)``, steps a few times a second only."""

    def __init__(self, tell: Callable[[str, list[Any]], None]) -> None:
        self._tell = tell
        self._steps, self._told = 0, 0.0

    def tell(self, what: str, *values: Any) -> None:
        """Tell an event."""
        self._tell(what, list(values))

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Tell."""
        self.tell("begin", stage, epochs, steps, members)

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Tell a few times a second."""
        self._steps += 1
        now = time.monotonic()
        if now - self._told >= _REFRESH:
            self.tell("advance", self._steps, images, *mean())
            self._steps, self._told = 0, now

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell."""
        self.tell("advance", self._steps, 0, 0.0, 0.0)
        self._steps = 0
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


class JsonProgress(TellingProgress):
    """Tells events as lines of JSON."""

    def __init__(self, out: IO[str]) -> None:
        def write(what: str, values: list[Any]) -> None:
            out.write(json.dumps([what, *values]) + "\n")
            out.flush()

        super().__init__(write)


def replay_event(progress: Progress, what: str, values: Sequence[Any]) -> None:
    """Tell a progress an event that was told elsewhere."""
    if what == "begin":
        stage, epochs, steps, members = values
        progress.begin(stage, epochs=epochs, steps=steps, members=members)
    elif what == "advance":
        steps, images, loss, accuracy = values
        for _ in range(steps):
            progress.advance(images, lambda: (loss, accuracy))
    elif what == "end":
        progress.end()
    else:
        getattr(progress, {"epoch": "epoch", "resumed": "resumed", "note": "note"}[what])(*values)


class Mailbox:
    """Where workers leave what they tell, until somebody looks; and where they see whether they are to end."""

    def __init__(self) -> None:
        self._events: list[tuple[int, str, list[Any]]] = []
        self._signal: int | None = None

    def put(self, i: int, what: str, values: list[Any]) -> None:
        """Leave an event of a task."""
        self._events.append((i, what, values))

    def take(self) -> list[tuple[int, str, list[Any]]]:
        """Return all events, once."""
        events, self._events = self._events, []
        return events

    def send(self, signal: int) -> None:
        """Ask all workers to end, as by a signal."""
        self._signal = signal

    def signal(self) -> int | None:
        """Return what `send` was given; None: nothing yet."""
        return self._signal


def is_of_the_task(error: Exception) -> bool:
    """Tell whether an error is the failure of one task, as is whatever a user's network raises; else the run ends.

    It ends by what ddcnn says of what all tasks were given, such as a full disk, by a signal, by an assertion of
    ddcnn's own that does not hold, and where nobody listens any more.
    """
    if isinstance(error, DdcnnError):
        return isinstance(error, TrainingError)
    if isinstance(error, AssertionError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        return not str(frame.f_globals.get("__name__")).startswith("ddcnn.")
    return not isinstance(error, BrokenPipeError)


def describe(error: Exception) -> tuple[str, bool]:
    """Return a reason in one line, and whether the task would fail again in the same way."""
    text = in_one_line(error)
    if is_out_of_memory(error):
        return f"not enough memory: {text}", False
    if isinstance(error, DdcnnError):
        return text, isinstance(error, TrainingError)
    return text if text == type(error).__name__ else f"{type(error).__name__}: {text}", False

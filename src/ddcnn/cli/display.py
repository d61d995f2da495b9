"""What the user sees: progress on stderr (bars on a terminal, else a line per epoch), results on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ddcnn.cli.streams import colors, print_json
from ddcnn.text import printable
from ddcnn.training.progress import Progress

__all__ = ["AnimatedProgress", "Pace", "PlainProgress", "print_json", "print_path", "print_table", "watching"]

_SHORT = 2.0  # seconds of an epoch
_REFRESH = 0.25  # seconds; to ask for the loss waits for the device


def print_table(table: Table) -> None:
    """Print a table on stdout: denser where the terminal is narrow, but never cut."""
    console = Console(color_system=colors())
    if not console.is_terminal:
        console.width = max(80, _width(table, console))
    elif _width(table, console) > console.width:
        table.box, table.padding, table.pad_edge, table.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False, False
        console.width = max(console.width, _width(table, console))
    console.print(table)


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def print_path(what: str, path: Path, *, stderr: bool = False) -> None:
    """Print where something was written; the line is never wrapped."""
    print(f"{what}: {printable(path)}", file=sys.stderr if stderr else sys.stdout)


@contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """Provide the progress that suits stderr: silent, animated, or plain lines."""
    if quiet:
        yield Progress()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and colors() is not None:
        progress = AnimatedProgress(Console(stderr=True))
        try:
            yield progress
        finally:
            progress.close()
    else:
        yield PlainProgress()


class Pace:
    """Counts the steps of a stage, and how fast they are.

    Attributes
    ----------
    stage
        What to call it.
    epochs, steps
        As in `Progress.begin`.
    epoch, done
        The present epoch from 1, and steps done in the stage.
    """

    def __init__(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        stage = printable(stage)
        self.stage = f"{stage} x{members}" if members > 1 else stage
        self.epochs, self.steps = epochs, steps
        self.epoch, self.done = 1, 0
        self._images = self._before = 0
        self._began = self._epoch_began = self._now = time.perf_counter()

    def advance(self, images: int) -> None:
        """Count a step."""
        self.done += 1
        self._images += images
        self._now = time.perf_counter()

    def resume(self, epochs: int) -> None:
        """Begin after so many epochs, which were trained earlier."""
        self.done = self._before = epochs * self.steps
        self.epoch = min(epochs + 1, self.epochs)

    def end_epoch(self) -> None:
        """Go to the next epoch; its images per second are counted anew."""
        self.epoch = min(self.epoch + 1, self.epochs)
        self._images = 0
        self._epoch_began = time.perf_counter()

    @property
    def rate(self) -> str:
        """Training images per second in this epoch; validation is not counted."""
        return f"{self._images / max(self._now - self._epoch_began, 1e-9):,.0f} images/s"

    @property
    def epoch_seconds(self) -> float:
        """How long the present epoch has taken."""
        return time.perf_counter() - self._epoch_began

    @property
    def seconds_left(self) -> float:
        """Time until the last epoch ends, at the pace of the stage so far, validation included."""
        elapsed = time.perf_counter() - self._began
        return elapsed / max(self.done - self._before, 1) * max(self.epochs * self.steps - self.done, 0)


class PlainProgress(Progress):
    """One line per epoch on stderr; where epochs are short, one per ten, and the last."""

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Start counting."""
        self._pace = Pace(stage, epochs=epochs, steps=steps, members=members)
        self._unsaid = ""

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:  # noqa: ARG002
        """Count."""
        self._pace.advance(images)

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the line, or keep it."""
        pace = self._pace
        parts = [
            f"{pace.stage}: epoch {pace.epoch}/{pace.epochs}",
            f"loss {_mean(row.get('train_loss'), '.3f')}",
            f"accuracy {_mean(row.get('train_accuracy'), '.1%')}",
            f"validation {_mean(row.get('validation_accuracy'), '.1%')}",
            pace.rate,
            f"{_clock(pace.seconds_left)} left",
        ]
        self._unsaid = ", ".join(parts)
        if pace.epoch_seconds >= _SHORT or pace.epoch % 10 == 0 or pace.epoch == pace.epochs:
            self._say()
        pace.end_epoch()

    def end(self) -> None:
        """Print the line of the last epoch, if the stage ended early."""
        self._say()

    def _say(self) -> None:
        if self._unsaid:
            self.note(self._unsaid)
        self._unsaid = ""

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell where it goes on."""
        self._pace.resume(len(rows))
        self.note(f"{self._pace.stage}: {_resumed(rows, self._pace)}")

    def beside(self) -> PlainProgress:
        """Return another, whose lines come between."""
        return PlainProgress()

    def note(self, text: str) -> None:
        """Print it."""
        print(printable(text), file=sys.stderr, flush=True)


class AnimatedProgress(Progress):
    """One bar per stage."""

    def __init__(self, console: Console, bars: Bars | None = None) -> None:
        self._bars = bars or Bars(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[epoch]}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            refresh_per_second=4,
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bars.stop()

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Add a bar."""
        self._pace = Pace(stage, epochs=epochs, steps=steps, members=members)
        self._drawn = time.perf_counter()
        self._numbers = ""
        self._bars.start()
        self._task = self._bars.add_task(self._pace.stage, total=epochs * steps, epoch="", numbers="")
        self._draw()

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Count; draw a few times a second."""
        self._pace.advance(images)
        now = time.perf_counter()
        if now - self._drawn >= _REFRESH:
            loss, accuracy = mean()
            self._numbers = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {self._pace.rate}"
            self._drawn = now
            self._draw()

    def epoch(self, row: dict[str, Any]) -> None:
        """Draw the numbers of the whole epoch."""
        loss, accuracy = _mean(row.get("train_loss"), ".3f"), _mean(row.get("validation_accuracy"), ".1%")
        self._numbers = f"loss {loss}  validation {accuracy}  {self._pace.rate}"
        self._draw()
        self._pace.end_epoch()

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Begin where it goes on."""
        self._pace.resume(len(rows))
        self._numbers = _resumed(rows, self._pace)
        self._draw()

    def beside(self) -> AnimatedProgress:
        """Return another, with bars of its own in the same display."""
        return AnimatedProgress(self._bars.console, self._bars)

    def end(self) -> None:
        """Fill the bar, also after an early stop."""
        self._bars.update(self._task, completed=max(self._pace.done, 1), total=max(self._pace.done, 1))

    def note(self, text: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(escape(printable(text)), highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        pace = self._pace
        self._bars.update(self._task, completed=pace.done, epoch=f"{pace.epoch}/{pace.epochs}", numbers=self._numbers)


def _resumed(rows: Sequence[dict[str, Any]], pace: Pace) -> str:
    return "done before" if len(rows) == pace.epochs else f"goes on in epoch {pace.epoch}"


def _mean(values: Any, style: str) -> str:
    """Write the mean over the members; "-" where there is none.

    >>> _mean([0.5, 0.7], ".1%"), _mean([None], ".3f")
    ('60.0%', '-')
    """
    numbers = [v for v in values if v is not None] if isinstance(values, Sequence) else []
    return format(sum(numbers) / len(numbers), style) if numbers else "-"


def _clock(seconds: float) -> str:
    """Write a time.

    >>> _clock(83.0), _clock(3700.0)
    ('1:23', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

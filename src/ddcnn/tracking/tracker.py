"""`Tracker`: a watcher that turns epochs and results into named numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from ddcnn.config import Config
from ddcnn.errors import in_one_line
from ddcnn.training import Progress

_RESULTS = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_auc", "test_f1", "seconds", "parameters")


class Tracker(Progress, ABC):
    """Shows a run elsewhere. What goes wrong there is said once, and changes nothing in the run.

    The mean over the networks that are trained at once is ``STAGE/METRIC``; each of several is ``STAGE/METRIC.N``. When
    all is trained, each strategy has ``results/NAME/METRIC``.
    """

    @abstractmethod
    def begin_run(self, place: Path, name: str, config: Config, *, resuming: bool) -> str:
        """Begin to show a run of this name, below a folder; return in a few words how it is seen."""

    @abstractmethod
    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        """Show named numbers of an epoch."""

    @abstractmethod
    def end_run(self, *, complete: bool) -> None:
        """Show nothing more; ``complete``: the run has reached its end."""

    @contextmanager
    def of_run(self, config: Config, note: Callable[[str], None], *, resuming: bool) -> Iterator[None]:
        """Begin to show a run, and end with it."""
        assert config.out is not None
        self._note, self._lock, self._works, complete = note, Lock(), True, False
        place, name = place_of(config.out)
        self._tried(lambda: note(f"tracked: {self.begin_run(place, name, config, resuming=resuming)}"))
        try:
            yield
            complete = True
        finally:
            self._tried(lambda: self.end_run(complete=complete))

    def epoch(self, row: dict[str, Any]) -> None:
        """Show its numbers."""
        self._tried(lambda: self.numbers(named_numbers(row), row["epoch"]))

    def found(self, results: dict[str, Any]) -> None:
        """Show the figures of each strategy."""
        rows = results["strategies"]
        values = {f"results/{row['name']}/{key}": row[key] for row in rows for key in _RESULTS}
        self._tried(lambda: self.numbers({name: float(v) for name, v in values.items() if v is not None}, 0))

    def _tried(self, action: Callable[[], None]) -> None:
        with self._lock:
            try:
                if self._works:
                    action()
            except Exception as error:  # a full disk, a server that is gone
                self._works = False
                self._note(f"tracking has ended: {in_one_line(error)}; metrics.jsonl has all epochs")


def named_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch by name.

    >>> named_numbers({"stage": "local", "epoch": 1, "seconds": 2.0, "train_loss": [0.5, None, 0.25]})
    {'local/train_loss': 0.375, 'local/train_loss.0': 0.5, 'local/train_loss.2': 0.25}
    """
    found = {}
    for metric, values in row.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            continue
        known = {n: value for n, value in enumerate(values) if value is not None}
        if known:
            found[f"{row['stage']}/{metric}"] = sum(known.values()) / len(known)
        if len(values) > 1:
            found |= {f"{row['stage']}/{metric}.{n}": value for n, value in known.items()}
    return found


def place_of(out: Path) -> tuple[Path, str]:
    """Return the folder below which trackers write, beside a run, or beside the whole of which it is a fold or a cell.

    The second is what they call it.

    >>> place_of(Path("runs/c10"))[1], place_of(Path("runs/c10/folds/2"))[1]
    ('c10', 'c10-2')
    """
    out = out.absolute()
    if out.parent.name in ("folds", "cells"):
        whole = out.parents[1]
        return whole.parent, f"{whole.name}-{out.name}"
    return out.parent, out.name

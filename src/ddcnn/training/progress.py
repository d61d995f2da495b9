"""What a training tells whoever watches it. The base class is silent; the command line draws bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Progress:
    """Receives the events of a run: per stage ``begin``, ``advance`` per step, ``epoch`` per epoch, ``end``.

    Override what you want to know of, and give it to `ddcnn.train`, `ddcnn.compare`, `ddcnn.resume` or `ddcnn.fit`. It
    is called in the process that started the run, also for what worker processes train. An exception that it raises
    ends the run, which goes on from its checkpoints when it is resumed.

    Examples
    --------
    >>> class Best(Progress):
    ...     best = 0.0
    ...     def epoch(self, row):
    ...         self.best = max(self.best, *(accuracy or 0.0 for accuracy in row["validation_accuracy"]))
    >>> watcher = Best()
    >>> watcher.epoch({"stage": "local", "epoch": 1, "validation_accuracy": [0.5, 0.75]})
    >>> watcher.best
    0.75
    """

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Tell that a stage begins: at most ``epochs`` of ``steps`` steps, ``members`` networks at once."""

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Tell that a step of so many images is done; ``mean()`` is the loss and accuracy of the epoch so far.

        Calling ``mean`` waits for the device: call it a few times a second, not each step.
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell that an epoch is done.

        Parameters
        ----------
        row
            What goes to ``metrics.jsonl``: ``"stage"``, ``"epoch"`` from 1, ``"seconds"`` since the stage began, and
            lists with a number for each network that is trained at once, None for one that has stopped: ``"lr"``,
            ``"train_loss"``, ``"train_accuracy"``, ``"validation_loss"``, ``"validation_accuracy"``.
        """

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell that the first epochs were trained earlier, with these rows; it follows ``begin``."""

    def beside(self) -> Progress:
        """Return who is told of a stage that runs at the same time as others; called from any thread."""
        return self

    def end(self) -> None:
        """Tell that the stage is done."""

    def note(self, text: str) -> None:
        """Tell one line that the user should read."""

    def found(self, results: dict[str, Any]) -> None:
        """Tell what the run found when all is trained: the content of ``comparison.json``."""


class Several(Progress):
    """Passes events on to several watchers."""

    def __init__(self, *watchers: Progress) -> None:
        self.watchers = watchers

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Pass on."""
        for one in self.watchers:
            one.begin(stage, epochs=epochs, steps=steps, members=members)

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Pass on."""
        for one in self.watchers:
            one.advance(images, mean)

    def epoch(self, row: dict[str, Any]) -> None:
        """Pass on."""
        for one in self.watchers:
            one.epoch(row)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Pass on."""
        for one in self.watchers:
            one.resumed(rows)

    def beside(self) -> Several:
        """Return those who are told of a stage that runs at the same time."""
        return Several(*(one.beside() for one in self.watchers))

    def end(self) -> None:
        """Pass on."""
        for one in self.watchers:
            one.end()

    def note(self, text: str) -> None:
        """Pass on."""
        for one in self.watchers:
            one.note(text)

    def found(self, results: dict[str, Any]) -> None:
        """Pass on."""
        for one in self.watchers:
            one.found(results)

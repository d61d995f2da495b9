"""What a training tells whoever watches it. This base class is silent; the command line draws bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Progress:
    """Receives the events of a stage: ``begin``, ``advance`` per step and ``epoch`` per epoch, ``end``."""

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Tell that a stage begins: at most ``epochs`` of ``steps`` steps, ``members`` networks at once."""

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Tell that a step of so many images is done; ``mean()`` is the loss and accuracy of the epoch so far.

        Calling ``mean`` waits for the device: call it a few times a second, not each step.
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell that an epoch is done; the row is what goes to ``metrics.jsonl``."""

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell that the first epochs were trained earlier, with these rows; it follows ``begin``."""

    def beside(self) -> Progress:
        """Return who is told of a stage that runs at the same time as others; called from any thread."""
        return self

    def end(self) -> None:
        """Tell that the stage is done."""

    def note(self, text: str) -> None:
        """Tell one line that the user should read."""

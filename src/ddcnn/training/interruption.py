"""Signals that ask a training to end: it is heard between two steps, when everything can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ddcnn.errors import InterruptionError

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Interruption:
    """What has been asked for, in this process.

    Attributes
    ----------
    signal
        The last signal that came; None: none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._depth = 0

    def request(self, number: int) -> None:
        """Take note of a signal: it is honoured by `check`, or at once where nobody would check."""
        again, self.signal = self.signal is not None, number
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt  # whoever presses Ctrl-C twice does not want to wait
        if not self._depth:
            raise InterruptionError(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Promise that `check` is called often: a signal that comes meanwhile waits for it."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def check(self) -> None:
        """Raise `InterruptionError` if a signal has come."""
        if self.signal is not None:
            raise InterruptionError(self.signal)


INTERRUPTION = Interruption()


@contextmanager
def listening() -> Iterator[None]:
    """Handle Ctrl-C, SIGTERM and SIGUSR1 (Slurm, spot machines) by `INTERRUPTION` while the context lasts."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal.signal wants it
        INTERRUPTION.request(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        INTERRUPTION.signal = None

"""A process that ends in the middle of an experiment, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddcnn.training import Progress


class Stop(BaseException):
    """The end of a process."""


class Stopping(Progress):
    """Ends everything after so many epochs, and remembers what it was told."""

    def __init__(self, epochs: int = -1) -> None:
        self.left, self.notes, self.stages, self.earlier = epochs, [], [], 0  # type: ignore[var-annotated]

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.stages.append(stage)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        self.earlier += len(rows)

    def epoch(self, row: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]

"""Runs in a process of their own that dies at a chosen moment, for real: by SIGKILL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ddcnn.runs.files
from ddcnn import experiments
from ddcnn.config import Config
from ddcnn.training import Progress
from tests.forked import context


class Moments(Progress):
    """Counts what happens, and kills the process at the n-th moment; 0: never."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0

    def happen(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.happen()

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.happen()

    def epoch(self, row: dict[str, Any]) -> None:
        self.happen()

    def beside(self) -> Moments:
        return self


def _watched_write(moments: Moments, path: Path, content: bytes) -> None:
    """Write as `ddcnn.runs.files.write_atomic` does, with moments before, within and after."""
    moments.happen()
    partly = path.parent / f".{path.name}.abcdefgh"
    partly.write_bytes(content[: len(content) // 2])
    moments.happen()
    partly.unlink()
    write(path, content)
    moments.happen()


write = ddcnn.runs.files.write_atomic


def run(values: dict[str, Any], last: int, counted: Any, *, resuming: bool) -> None:
    """Do a run, or go on with it, until its last moment; tell how many moments there were."""
    torch.set_num_threads(1)
    moments = Moments(last)
    for module in (ddcnn.runs.files, ddcnn.training.checkpoint):
        module.write_atomic = lambda path, content: _watched_write(moments, path, content)  # type: ignore[attr-defined]
    config = Config.parse(values)
    if resuming:
        assert config.out is not None
        experiments.resume(config.out, progress=moments, command="ddcnn compare --resume", trust=True)
    else:
        experiments.compare(config, progress=moments, command="ddcnn compare")
    counted.value = moments.count


def in_process(values: dict[str, Any], last: int = 0, *, resuming: bool = False) -> tuple[int | None, int]:
    """Do it elsewhere; return the exit code, negative for a signal, and the number of moments if it came to its end."""
    counted = context().Value("i", 0)
    process = context().Process(target=run, args=(values, last, counted), kwargs={"resuming": resuming})
    process.start()
    process.join(120)
    return process.exitcode, int(counted.value)

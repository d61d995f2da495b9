"""`TaskPayload`: numbers and arrays, without pickle, from which a worker elsewhere makes the inputs of a task."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddcnn.atomic import advice, replacing, write_atomic
from ddcnn.errors import RunError

_NUMBERS = "numbers.json"


class _Sink(NamedTuple):
    """All that numpy needs of a file to write in pieces. To a file it knows it writes by C, which says no reason."""

    write: Callable[[bytes], int]


@dataclass(frozen=True)
class TaskPayload:
    """Numbers, as JSON takes them, and arrays by name.

    `save` and `open` pass it between processes of one machine: arrays are files that all of them map into memory, so
    that there is one copy, whatever the number of workers.
    """

    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def save(self, folder: Path) -> None:
        """Write it; a payload that is there already is replaced.

        Raises
        ------
        RunError
            The folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, array in self.arrays.items():
                with replacing(folder / f"{name}.npy") as file:
                    np.save(_Sink(file.write), array, allow_pickle=False)
            names = sorted(self.arrays)
            write_atomic(folder / _NUMBERS, json.dumps({"numbers": self.numbers, "arrays": names}).encode())
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {advice(error)}, then resume the run") from None

    @classmethod
    def open(cls, folder: Path) -> TaskPayload:
        """Map a payload that `save` wrote; changes of its arrays stay in this process."""
        content = json.loads((folder / _NUMBERS).read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in content["arrays"]
        }
        return cls(content["numbers"], arrays)

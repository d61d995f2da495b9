"""Checkpoints: two generations of the state of a training, each whole and verified, or not used.

A checkpoint is one safetensors file whose name ends with the SHA-256 of its content. It is written to a temporary file,
synced and renamed, and only then is the generation before the last removed. Numbers that are no tensors lie in it as
JSON. There is no pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ddcnn.atomic import write_atomic
from ddcnn.data.files import open_regular
from ddcnn.errors import RunError

_NAME = re.compile(r"([0-9]{9})-([0-9a-f]{64})\.safetensors")
_GENERATIONS = 2
_NUMBERS = "numbers.json"
_MOST_SECONDS = 120.0
_SHARE = 0.01  # of the time may be spent on writing


@dataclass(frozen=True)
class State:
    """The state of a training.

    Attributes
    ----------
    tensors
        By name.
    numbers
        Everything else, as JSON takes it.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix/``, without it."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


@runtime_checkable
class CheckpointStore(Protocol):
    """Where the state of a training is kept; `Checkpoints` is one."""

    def load(self) -> State | None:
        """Return the newest state that is whole; None if there is none."""

    @property
    def due(self) -> bool:
        """Whether a state should be saved at the end of an epoch."""

    def asked(self, signal: int | None) -> tuple[bool, int | None]:
        """Return between two steps whether to save a state, and a signal to end by, if there is one.

        ``signal`` is what this process was sent.
        """

    def save(self, state: State) -> None:
        """Keep a state."""


@dataclass
class Checkpoints:
    """The checkpoints of one training.

    Attributes
    ----------
    folder
        Theirs alone.
    key
        SHA-256 of all that the training depends on; a checkpoint of another key is not used.
    note
        Who is told of damaged files.
    """

    folder: Path
    key: str
    note: Callable[[str], None] = print
    _number: int = 0
    _written: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def load(self) -> State | None:
        """Return the newest state that is whole; None if there is none.

        Raises
        ------
        RunError
            The checkpoints are of another training, or the folder cannot be read.
        """
        for number, path in reversed(self._generations()):
            self._number = max(self._number, number)
            state = self._read(path)
            if state is not None:
                if state.numbers.get("key") != self.key:
                    raise RunError(
                        f"{path} was made with other data or another configuration; start anew with another --out"
                    )
                return state
        return None

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be written at the next chance: the last cost less than 1 % of the time since."""
        return time.monotonic() - self._written >= self._cost / _SHARE

    @property
    def overdue(self) -> bool:
        """Whether a checkpoint should be written even within an epoch."""
        return time.monotonic() - self._written >= max(_MOST_SECONDS, self._cost / _SHARE)

    def asked(self, signal: int | None) -> tuple[bool, int | None]:
        """Return whether to write between two steps, and the signal."""
        return self.overdue or signal is not None, signal

    def save(self, state: State) -> None:
        """Write a state; the one before stays, those before it go."""
        start = time.monotonic()
        content = packed(State(state.tensors, state.numbers | {"key": self.key}))
        self._number += 1
        self.put(content, self._number)
        self._written = time.monotonic()
        self._cost = self._written - start

    def put(self, content: bytes, number: int) -> None:
        """Write the bytes of a checkpoint, perhaps one that was made elsewhere."""
        path = self.folder / f"{number:09}-{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
            for _, old in self._generations()[:-_GENERATIONS]:
                old.unlink(missing_ok=True)
        except OSError as error:
            kept = "the checkpoint before it is whole" if number > 1 else "there is no checkpoint before it"
            raise RunError(
                f"{path} cannot be written: {error.strerror or error}; {kept}: make room, then resume"
            ) from None

    def newest(self) -> bytes:
        """Return the bytes of the newest checkpoint, to `put` it elsewhere."""
        return self._generations()[-1][1].read_bytes()

    def _generations(self) -> list[tuple[int, Path]]:
        try:
            paths = list(self.folder.iterdir()) if self.folder.is_dir() else []
        except OSError as error:
            raise RunError(f"{self.folder} cannot be read: {error.strerror}") from None
        return sorted((int(found[1]), path) for path in paths if (found := _NAME.fullmatch(path.name)))

    def _read(self, path: Path) -> State | None:
        found = _NAME.fullmatch(path.name)
        assert found is not None
        try:
            with open_regular(path) as file:
                content = file.read()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}; remove it") from None
        if hashlib.sha256(content).hexdigest() != found[2]:
            self.note(f"{path} is damaged: its SHA-256 is not that of its name; it is not used")
            return None
        return unpacked(content, path)


def packed(state: State) -> bytes:
    """Return a state as the bytes of a safetensors file."""
    numbers = torch.frombuffer(bytearray(json.dumps(state.numbers).encode()), dtype=torch.uint8)
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in state.tensors.items()
    }
    return save_safetensors(tensors | {_NUMBERS: numbers})


def unpacked(content: bytes, path: Path) -> State:
    """Return what `packed` was given.

    Raises
    ------
    RunError
        The bytes are no such file.
    """
    try:
        tensors = load_safetensors(content)
        numbers = json.loads(tensors.pop(_NUMBERS).numpy().tobytes())
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is not a checkpoint: {error}; remove it") from None
    if not isinstance(numbers, dict):
        raise RunError(f"{path} is not a checkpoint: it holds no numbers; remove it")
    return State(tensors, numbers)


@dataclass(frozen=True)
class Workspace:
    """Where the trainings of a run keep their checkpoints.

    Attributes
    ----------
    folder
        ``checkpoints`` of the run.
    fingerprint
        SHA-256 of what all trainings of the run depend on: configuration, data, split.
    note
        As `Checkpoints` has them.
    """

    folder: Path
    fingerprint: str
    note: Callable[[str], None] = print

    def of(self, stage: str, inputs: Mapping[str, Any] | None = None) -> Checkpoints:
        """Return the checkpoints of one training; ``inputs``, as JSON takes them, are what else it depends on."""
        about = json.dumps([self.fingerprint, stage, inputs or {}], sort_keys=True)
        key = hashlib.sha256(about.encode()).hexdigest()
        return Checkpoints(self.folder / f"{re.sub(r'[^a-z0-9]+', '-', stage)}-{key[:12]}", key, self.note)

"""A run on disk: a folder of plain files, each written whole or not at all, and a manifest with their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ddcnn.errors import RunError

MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"
_PARTLY = re.compile(r"\..+\.[a-z0-9_]{8}")  # as `write_atomic` calls what it has not renamed yet


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary file, flush, fsync, rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    packages = ("ddcnn", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


class RunFolder:
    """A folder that a run writes into.

    Parameters
    ----------
    path
        The folder; `create` makes it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: list[str] = []
        self._lock = threading.Lock()

    def check_free(self, *, force: bool) -> None:
        """Make sure that nothing is overwritten by accident.

        Raises
        ------
        RunError
            The folder exists, and is not empty, and either ``force`` is not set or it does not look like a run.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not force:
            raise RunError(f"{self.path} exists; choose another --out, or --force to replace it")
        if not self.path.is_dir() or not (self.path / "config.yaml").is_file():
            raise RunError(f"{self.path} is not a run of ddcnn and is not replaced; choose another --out")

    def create(self, *, force: bool) -> None:
        """Make the folder; with ``force`` an earlier run in it is removed first."""
        self.check_free(force=force)
        try:
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"{self.path} cannot be made: {error.strerror}; choose another --out") from None

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self._write(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON; NaN is not allowed."""
        self._write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a safetensors file."""
        self._write(name, save_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Add a row to ``metrics.jsonl``."""
        with self._lock:  # workers tell at the same time
            self._rows.append(json.dumps(row, allow_nan=False))
            self._write("metrics.jsonl", ("\n".join(self._rows) + "\n").encode())

    def seal(self) -> None:
        """Write the manifest: the SHA-256 of every file. A run without it is not complete."""
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name != MANIFEST and not self._passing(p))
        sums = {p.relative_to(self.path).as_posix(): _sha256(p.read_bytes()) for p in files}
        self.write_json(MANIFEST, {"version": 1, "sha256": sums})

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in list(self.path.rglob(".*")):
            if path.is_file() and _PARTLY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove the checkpoints of a complete run."""
        assert self.is_complete()
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def _passing(self, path: Path) -> bool:
        return path.relative_to(self.path).parts[0] == CHECKPOINTS

    def is_complete(self) -> bool:
        """Tell whether the run has its manifest, which is written last."""
        return (self.path / MANIFEST).is_file()

    def check(self) -> None:
        """Compare every file with the manifest.

        Raises
        ------
        RunError
            There is no run, it is not complete, or a file is missing or damaged: the first is named.
        """
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder; give the folder of a run")
        if not self.is_complete():
            raise RunError(f"{self.path} has no {MANIFEST}: it is not a run, or one that did not finish; train again")
        sums = self.read_json(MANIFEST).get("sha256")
        if not isinstance(sums, dict):
            raise RunError(f"{self.path / MANIFEST} is damaged; train again")
        for name, expected in sums.items():
            if _sha256(self._read(name)) != expected:
                raise RunError(f"{self.path / name} is damaged: its SHA-256 is not that of {MANIFEST}; train again")

    def read_text(self, name: str) -> str:
        """Read a text file."""
        try:
            return self._read(name).decode()
        except UnicodeDecodeError:
            raise RunError(f"{self.path / name} is not text; train again") from None

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object."""
        try:
            value = json.loads(self.read_text(name))
        except ValueError as error:
            raise RunError(f"{self.path / name} is not valid JSON: {error}") from None
        if not isinstance(value, dict):
            raise RunError(f"{self.path / name} should hold a JSON object, got {type(value).__name__}; train again")
        return value

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file."""
        try:
            return load_safetensors(self._read(name))
        except SafetensorError as error:
            raise RunError(f"{self.path / name} is not a safetensors file: {error}") from None

    def _read(self, name: str) -> bytes:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise RunError(f"{name!r} lies outside {self.path}; the run is not read")
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from None

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

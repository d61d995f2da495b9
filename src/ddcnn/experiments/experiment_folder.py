"""The folder of an experiment: ``experiment.json``, ``cells/``, ``cells.jsonl``, ``summary.json``, a page and plots."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from ddcnn.atomic import advice, write_atomic
from ddcnn.data.files import open_regular
from ddcnn.errors import RunError
from ddcnn.folders import FolderLock, entries
from ddcnn.runs.folder import RunFolder
from ddcnn.strict import parse_json
from ddcnn.training import PrecisionName

FORMAT = 1
MARK = "experiment.json"
CELLS = "cells.jsonl"
SUMMARY = "summary.json"
NOT_ASKED = "not asked for"  # why a variant is left out

_MOST = 2**28  # bytes of a file of text
_ANEW = "begin anew with another --out"


class ExperimentFolder:
    """Where an experiment lies; one process works in it at a time.

    Parameters
    ----------
    path
        The folder; `held` makes it.
    name
        Of the experiment.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._lock = FolderLock(path / ".lock")

    def check(self) -> None:
        """Make sure that the folder is free, or holds this experiment.

        Raises
        ------
        RunError
            It holds something else.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder; choose another --out")
        if not (self.path / MARK).is_file():
            if any(path.name != ".lock" for path in entries(self.path)):
                raise RunError(f"{self.path} holds something that is no experiment; choose another --out")
            return
        mark = read_json(self.path / MARK)
        if mark.get("format") != FORMAT:
            raise RunError(
                f"{self.path / MARK} is of format {mark.get('format')!r:.80}, this version of ddcnn reads {FORMAT}; "
                "go on with the version that began it, or choose another --out"
            )
        if mark.get("experiment") != self.name:
            raise RunError(f"{self.path} holds experiment {mark.get('experiment')!r:.80}; choose another --out")

    def read_precision(self) -> str | None:
        """Return the precision that all cells compute in; ``"auto"``: not the same; None: not begun."""
        if not (self.path / MARK).is_file():
            return None
        known = read_json(self.path / MARK).get("precision", "auto")
        if known not in get_args(PrecisionName) and known != "auto":
            raise RunError(f"{self.path / MARK} is damaged: precision {known!r:.80}; begin anew with another --out")
        return str(known)

    @contextlib.contextmanager
    def held(self, command: str, precision: str) -> Iterator[None]:
        """Make the folder, and keep other processes out of it while the context lasts."""
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = self._lock.acquire()
        except OSError as error:
            raise RunError(f"{self.path} cannot be used: {advice(error)}") from None
        if not free:
            raise RunError(f"{self.path} is being worked on by another process; wait for its end")
        try:
            if not (self.path / MARK).is_file():
                self._write(
                    MARK, _text({"format": FORMAT, "experiment": self.name, "precision": precision, "command": command})
                )
            yield
        finally:
            self._lock.release()

    def cell_names(self) -> list[str]:
        """Return the names of the cells that were begun."""
        folder = self.path / "cells"
        return [path.name for path in entries(folder) if path.is_dir()] if folder.is_dir() else []

    def complete_cells(self) -> list[str]:
        """Return the names of the cells whose runs are complete."""
        return [name for name in self.cell_names() if RunFolder(self.path / "cells" / name).is_complete()]

    def read_records(self, note: Callable[[str], object]) -> dict[str, dict[str, Any]]:
        """Return the lines of cells that are done, by the name of the cell; ``note`` is told what is damaged."""
        path = self.path / CELLS
        lines = _read(path, "remove it, and the same command makes it again").splitlines() if path.exists() else []
        found: dict[str, dict[str, Any]] = {}
        for n, line in enumerate(lines, 1):
            try:
                one = _object(line or "{}", f"{path} line {n}", "what it should say is read from the run again")
            except RunError as error:
                note(str(error))
            else:
                found[str(one.get("cell"))] = one
        return found

    def write_records(self, records: Sequence[dict[str, Any]]) -> None:
        """Write one line per cell that is done."""
        self._write(CELLS, "".join(f"{json.dumps(record, allow_nan=False)}\n" for record in records))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write what all cells say together."""
        self._write(SUMMARY, _text(summary))

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        try:
            write_atomic(path, text.encode(errors="backslashreplace"))
        except OSError as error:
            raise RunError(f"{path} cannot be written: {advice(error)}; earlier files are intact") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    RunError
        There is none.
    """
    return _object(_read(path), str(path))


def _read(path: Path, cure: str = _ANEW) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise RunError(f"{path} has more than {_MOST:,} bytes and is not read; {cure}")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}; {cure}") from None


def _object(text: str, source: str, cure: str = _ANEW) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise RunError(f"{source} is damaged: {error}; {cure}") from None
    if not isinstance(value, dict):
        raise RunError(f"{source} should hold a JSON object, got {type(value).__name__}; {cure}")
    return value


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"

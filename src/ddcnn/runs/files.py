"""The files of a run: each written whole or not at all, and compared with a manifest when it is read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
import threading
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ddcnn.atomic import advice, sync_folder, write_atomic
from ddcnn.errors import RunError
from ddcnn.runs.manifest import Manifest, NewerError, is_own, is_safe, sha256
from ddcnn.strict import MOST_YAML, parse_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"
BEGUN = f"{CHECKPOINTS}/run.json"
REPORT = "report.html"
MISTAKES = "mistakes.safetensors"

_SCRATCH = re.compile(rf"(folds/\d+/)?{CHECKPOINTS}/")
_PARTLY = re.compile(r"((?:.+/)?)\.([^/]+)\.[a-z0-9_]{8}")  # as `write_atomic` calls what it has not renamed yet
_REMOVED = re.compile(r"(.+/)?\.nfs[0-9a-f]{16,}")  # as NFS calls what was removed and is still open

_MOST_BYTES = {".yaml": MOST_YAML, ".json": 2**26, ".jsonl": 2**28}  # parsed text takes many times its size in memory
_MOST = 2**36  # of any other file: far above what a network needs, far below what a sparse file may claim
_INDENTED = 2**24  # JSON that is longer is written without line breaks, to stay below the limit
_TENSORS = ".safetensors"


class RunFiles:
    """The files of a run, in a folder that it writes, or that a stranger sent.

    A run is complete when it has its manifest. Whatever is read of a complete run is compared with it first, and what
    it does not name is not read. No name and no link leads out of the folder, and no file is read that is larger than
    such a file can be: 1 MiB of YAML, 64 MiB of JSON, 256 MiB of JSON lines, 64 GiB of anything else.
    """

    def __init__(self, path: Path | str) -> None:
        if not isinstance(path, str | os.PathLike):
            raise RunError(f"a run is named by the path of its folder, got {type(path).__name__}")
        self.path = Path(path)
        self._rows: list[str] = []
        self._lock = threading.Lock()
        self._known: Manifest | None = None

    def write_text(self, name: str, text: str) -> None:
        """Write a text file; bytes of names that are no UTF-8 are shown as the terminal shows them."""
        self._write(name, _utf8(text))

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON; NaN is not allowed."""
        text = json.dumps(value, indent=1, allow_nan=False)
        if len(text) > _INDENTED:
            text = json.dumps(value, separators=(",", ":"))
        self._write(name, (text + "\n").encode())

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save

        self._write(name, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Add a row to ``metrics.jsonl``."""
        with self._lock:  # workers tell at the same time
            self._rows.append(json.dumps(row, allow_nan=False))
            self._write("metrics.jsonl", ("\n".join(self._rows) + "\n").encode())

    def seal(self) -> None:
        """Write the manifest: the SHA-256 of every file. A run without it is not complete.

        A folder in it that is a complete run keeps its own manifest. Files of a kind that no run writes are no part of
        the run, nor are hidden files and links.
        """
        found = sorted(p for p in self.path.rglob("*") if p.is_file() and not p.is_symlink() and not self.is_scratch(p))
        runs = {p.parent for p in found if p.name == MANIFEST and p.parent != self.path}
        own = (p for p in found if not runs & set(p.parents) and p.name != MANIFEST)
        sums = {name: self._digest(name) for name in map(self.name_of, own) if is_own(name) and is_safe(name)}
        self._write_manifest(Manifest(sums, tuple(map(self.name_of, runs))))

    def add_sealed(self, name: str, content: str) -> None:
        """Write one text file of a complete run; the manifest's other entries stay as they are, unseen.

        A crash in between leaves a complete run without this file.
        """
        manifest = self.manifest()
        if name in manifest.sums:
            self._write_manifest(manifest.without(name))
        self.write_text(name, content)
        self._write_manifest(manifest.with_sum(name, sha256(_utf8(content))))

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in list(self.path.rglob(".*")):
            if path.is_file() and _is_partly(self.name_of(path)):
                path.unlink(missing_ok=True)

    def is_scratch(self, path: Path) -> bool:
        """Tell whether a file is one that passes: below ``checkpoints/``, or left half-written."""
        name = self.name_of(path)
        return bool(_SCRATCH.match(name) or _REMOVED.fullmatch(name)) or _is_partly(name)

    def is_complete(self) -> bool:
        """Tell whether the run has its manifest, which is written last."""
        return (self.path / MANIFEST).is_file()

    def manifest(self) -> Manifest:
        """Return the manifest, itself checked; no other file is looked at.

        Raises
        ------
        RunError
            There is no run, it is not complete, or its manifest is damaged.
        """
        if not self.path.is_dir():
            why = "is not a folder" if self.path.exists() else f"does not exist (looked from {Path.cwd()})"
            raise RunError(f"{self.path} {why}; give the folder of a run")
        if not self.is_complete():
            begun = (self.path / BEGUN).is_file()
            how = (
                f"unless it is being trained now, go on with ddcnn train --resume {self.path}"
                if begun
                else "give the folder of a complete run"
            )
            raise RunError(f"{self.path} has no {MANIFEST}: it is not a run, or one that did not finish; {how}")
        if self._known is None:
            try:
                with self._opened(MANIFEST) as (file, size):
                    self._known = Manifest.parse(file.read(size).decode("ascii"))
            except UnicodeDecodeError as error:
                raise RunError(self._damage(MANIFEST, f"not ASCII at byte {error.start}")) from None
            except RunError:
                raise
            except NewerError as error:
                how = "update ddcnn, or copy the run anew if that is damage"
                raise RunError(f"{self.path / MANIFEST} cannot be read: {error}; {how}") from None
            except ValueError as error:
                raise RunError(self._damage(MANIFEST, str(error))) from None
        return self._known

    def check(self, *, but: Collection[str] = ()) -> None:
        """Compare every file with the manifest, in constant memory.

        Parameters
        ----------
        but
            Names of files that are left out, since they are about to be written anew.

        Raises
        ------
        RunError
            There is no run, it is not complete, or a file is missing or damaged: the first is named.
        """
        manifest = self.manifest()
        for name, expected in manifest.sums.items():
            if name not in but and self._digest(name) != expected:
                raise RunError(self._damage(name))
        for name in manifest.runs:
            inner = RunFiles(self.inside(name))
            if inner.manifest().runs:
                raise RunError(f"{inner.path} is a run in a run, and should hold no further ones; the run is not read")
            inner.check()

    def has(self, name: str) -> bool:
        """Tell whether the run has a file; of a complete one, whether its manifest names it."""
        return name in self.manifest().sums if self.is_complete() else (self.path / name).is_file()

    def read_text(self, name: str) -> str:
        """Read a text file."""
        try:
            return self._read(name).decode()
        except UnicodeDecodeError as error:
            raise RunError(self._damage(name, f"not UTF-8 at byte {error.start}")) from None

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; NaN and infinity are refused."""
        try:
            value = parse_json(self.read_text(name))
        except RunError:
            raise
        except ValueError as error:
            raise RunError(self._damage(name, str(error))) from None
        if not isinstance(value, dict):
            raise RunError(f"{self.path / name} should hold a JSON object, got {type(value).__name__}; train again")
        return value

    def read_shapes(self, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type (``"F32"``) and shape of each tensor of a safetensors file, from its header alone."""
        from safetensors import SafetensorError, safe_open

        with self._opened(name):
            pass
        try:
            with safe_open(self.path / name, framework="numpy") as file:
                parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
                return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
        except (SafetensorError, OSError) as error:
            raise RunError(self._no_tensors(name, error)) from None

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._read(name))
        except (SafetensorError, KeyError) as error:  # KeyError: a type that torch does not have
            raise RunError(self._no_tensors(name, error)) from None

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read a safetensors file, without PyTorch."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self._read(name))
        except (SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(self._no_tensors(name, error)) from None

    def _read(self, name: str) -> bytes:
        sums = self.manifest().sums if self.is_complete() else None
        if sums is not None and name not in sums:
            raise RunError(f"{self.path / name} is not named in {MANIFEST} and not read; the run lacks it, train again")
        with self._opened(name) as (file, size):
            content = file.read(size)
        if sums is not None and sha256(content) != sums[name]:
            raise RunError(self._damage(name))
        return content

    def _digest(self, name: str) -> str:
        with self._opened(name) as (file, _):
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[io.BufferedReader, int]]:
        """Open a file of the run, and tell its size, unless it lies elsewhere or is larger than it can be."""
        path = self.inside(name)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise RunError(f"{path} is not a file; the run is not read")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                most = _MOST_BYTES.get(path.suffix, _MOST)
                if size > most:
                    raise RunError(f"{path} has {size:,} bytes, at most {most:,} are read; the run is not read")
                if path.suffix == _TENSORS:
                    self._check_header(name, file, size)
                yield file, size
        except FileNotFoundError:
            raise RunError(f"{path} is missing; the run is not complete, train again") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from None

    def _check_header(self, name: str, file: io.BufferedReader, size: int) -> None:
        header = int.from_bytes(file.read(8), "little")
        if size < 8 or header > size - 8:
            raise RunError(
                self._no_tensors(name, f"it announces a header of {header:,} bytes, but has {size:,} in all")
            )
        file.seek(0)

    def inside(self, name: str) -> Path:
        """Return where a file of the run lies, unless a link leads out of the folder."""
        try:
            inside = (self.path / name).resolve().is_relative_to(self.path.resolve())
        except (OSError, RuntimeError):  # links in a circle
            inside = False
        if not inside:
            raise RunError(f"{name!r} lies outside {self.path}; the run is not read")
        return self.path / name

    def _write_manifest(self, manifest: Manifest) -> None:
        self.write_text(MANIFEST, manifest.to_text())

    def _write(self, name: str, content: bytes) -> None:
        folder, file = PurePosixPath(name).parent.as_posix(), PurePosixPath(name).name
        path = self.inside(folder) / file
        if not self.path.is_dir():
            raise RunError(f"{path} cannot be written: {self.path} has vanished; leave it in place, and train again")
        self._known = None
        try:
            if not path.parent.exists():
                path.parent.mkdir()
                sync_folder(self.path)
            write_atomic(path, content)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {advice(error)}; earlier files are intact") from None

    def name_of(self, path: Path) -> str:
        """Return the name of a file in the run, with ``/``."""
        return path.relative_to(self.path).as_posix()

    def _damage(self, name: str, how: str = f"its SHA-256 is not that of {MANIFEST}") -> str:
        again = f"write it again with ddcnn report {self.path}" if name == REPORT else "copy it anew, or train again"
        return f"{self.path / name} is damaged: {how}; {again}"

    def _no_tensors(self, name: str, how: object) -> str:
        return f"{self.path / name} is not a safetensors file: {how}; copy it anew, or train again"


def _is_partly(name: str) -> bool:
    """Tell whether a file is what a killed process has left of one of a run; any other hidden file is the user's.

    >>> [_is_partly(name) for name in (".data.json.0123abcd", "folds/1/.data.json.0123abcd", ".thesis.chapter1")]
    [True, True, False]
    """
    match = _PARTLY.fullmatch(name)
    return match is not None and (bool(_SCRATCH.match(name)) or is_own(match[1] + match[2]))


def _utf8(text: str) -> bytes:
    return text.encode(errors="backslashreplace")

"""`Manifest`: the SHA-256 of every file of a complete run, in a form whose own damage is seen as well."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from ddcnn.strict import parse_json

_VERSION = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OWN = re.compile(r"(folds/\d+/)?([^/]+\.(yaml|json|jsonl|safetensors|html)|(locals|aggregations)/[^/]+\.safetensors)")


class NewerError(ValueError):
    """It was written by a version of ddcnn that this one does not know."""


@dataclass(frozen=True)
class Manifest:
    """What a complete run consists of.

    Attributes
    ----------
    sums
        The SHA-256 of each file, by its name: a relative path with ``/``.
    runs
        Folders in it that are complete runs with a manifest of their own.
    """

    sums: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the one text that stands for this manifest; it ends with a SHA-256 of itself.

        >>> print(Manifest({"a.json": 64 * "0"}).to_text())  # doctest: +ELLIPSIS
        {
         "version": 2,
         "sha256": {
          "a.json": "0000000000000000000000000000000000000000000000000000000000000000"
         },
         "runs": [],
         "manifest": "..."
        }
        <BLANKLINE>
        """
        body = {"version": _VERSION, "sha256": dict(sorted(self.sums.items())), "runs": sorted(self.runs)}
        return _dump(body | {"manifest": sha256(_dump(body).encode())})

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read what `to_text` wrote.

        Raises
        ------
        ValueError
            One line: a byte of it differs from what `to_text` writes, or a name could lead out of the folder; a
            `NewerError` if it is of a version to come.
        """
        values = parse_json(text)
        version = values.get("version") if isinstance(values, dict) else None
        if type(version) is int and version > _VERSION:
            raise NewerError(f"it is of version {version}, this ddcnn reads {_VERSION}")
        if version != _VERSION:
            raise ValueError(f"it should be of version {_VERSION}, got {version!r:.40}")
        sums, runs = values.get("sha256"), values.get("runs")
        if not _are_sums(sums) or not isinstance(runs, list) or not all(isinstance(name, str) for name in runs):
            raise ValueError("it should hold a SHA-256 by name of each file, and the names of runs")
        for name in (*sums, *runs):
            if not is_safe(name):
                raise ValueError(f"{name!r:.80} is no name of a file in a run")
        manifest = cls(sums, tuple(runs))
        if manifest.to_text() != text:
            raise ValueError("it is not as it was written: its own SHA-256 is another one")
        return manifest

    def with_sum(self, name: str, digest: str) -> Manifest:
        """Return a manifest with one entry new or replaced."""
        return replace(self, sums={**self.sums, name: digest})

    def without(self, name: str) -> Manifest:
        """Return a manifest without an entry."""
        return replace(self, sums={other: digest for other, digest in self.sums.items() if other != name})

    def covers(self, name: str) -> bool:
        """Tell whether a file is of this run or of one in it, or may join the run later."""
        inner = any(name.startswith(f"{run}/") and is_own(name) for run in self.runs)
        return inner or name in self.sums or name in ("manifest.json", "report.html")


def is_own(name: str) -> bool:
    """Tell whether a file has a name that a run gives to what it writes.

    >>> [is_own(name) for name in ("config.yaml", "aggregations/own.safetensors", "folds/1/data.json", "a/b.json")]
    [True, True, True, False]
    """
    return _OWN.fullmatch(name) is not None and not PurePosixPath(name).name.startswith(".")


def is_safe(name: str) -> bool:
    r"""Tell whether a name leads, as text, to a place in the folder, on any system, and can be printed.

    >>> [is_safe(name) for name in ("locals/0.safetensors", "../a", "/etc/passwd", "a/../../b", "C:b", "a\\b", "")]
    [True, False, False, False, False, False, False]
    """
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and not any(character in name for character in '\\:*?"<>|')
    return plain and bool(parts) and "/".join(parts) == name and not {"..", "/", "//"} & set(parts)


def sha256(content: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _are_sums(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in values.values())


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"

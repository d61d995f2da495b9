"""Standard streams that cannot end a training: what nobody can read any more is dropped, and that is remembered."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

from ddcnn.text import printable


class _Enduring(io.FileIO):
    """A file descriptor whose errors are kept, not raised: a full disk, a closed pipe or terminal."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def colors() -> Literal["auto"] | None:
    """Return which colours rich may use; None, where NO_COLOR is set: none, and no other escapes."""
    return None if os.environ.get("NO_COLOR") else "auto"


def without_colors() -> None:
    """Let typer's help have no escapes where NO_COLOR is set: bold and dim letters are escapes, too."""
    if colors() is None or "typer.rich_utils" in sys.modules:
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = colors()


def endure() -> None:
    """Let stdout and stderr of this process endure; whoever has replaced them is left alone."""
    for number in (0, 1, 2):
        _open_if_closed(number)
    if sys.stdout in (None, sys.__stdout__):
        sys.stdout = _enduring(sys.stdout, 1)
    if sys.stderr in (None, sys.__stderr__):
        sys.stderr = _enduring(sys.stderr, 2)


@contextmanager
def escaped_warnings() -> Iterator[None]:
    """Print warnings of libraries, which may quote a file, as one line that steers no terminal."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)

    before, handler = warnings.showwarning, logging.lastResort
    formatter = None if handler is None else handler.formatter
    warnings.showwarning = show
    if handler is not None:
        handler.setFormatter(_Escaping("%(message)s"))
    try:
        yield
    finally:
        warnings.showwarning = before
        if handler is not None:
            handler.setFormatter(formatter)


class _Escaping(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(" ".join(super().format(record).split()))


def lost() -> OSError | None:
    """Return why something on stdout was dropped; None: all of it was written."""
    try:
        sys.stdout.flush()
    except OSError as error:  # of a stream that does not endure
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Enduring) else None


def _open_if_closed(number: int) -> None:
    """Keep the number of a closed stream from becoming that of a file, into which prints of C code would then go."""
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)  # gets the lowest free number; what is written there is an error


def _enduring(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed, and its number may be that of a file by now
        number = os.open(os.devnull, os.O_RDONLY)
    else:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(cast(io.RawIOBase, _Enduring(number, "w", closefd=False))),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",  # a letter that the terminal lacks is no reason to end, either
        line_buffering=number == 2 or os.isatty(number),
        write_through=False,
    )

"""Every error that ddcnn raises on purpose, so that a caller can catch exactly these.

All of them mean "what you gave cannot be used", and their one-line message says what was expected, what came, and
what to do. The command line prints that line and exits with code 2. A broken invariant of our own is an
``AssertionError`` instead.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

_LONGEST = 300  # characters of what is quoted
_OUT_OF_MEMORY = re.compile("can't allocate memory|could not create a (primitive(?! desc)|memory object)")  # and oneDNN


class DdcnnError(ValueError):
    """Base of all errors of ddcnn."""


class ConfigError(DdcnnError):
    """An option or a field of the configuration is unknown, missing or out of range."""


class DataError(DdcnnError):
    """Images, labels or files cannot be used."""


class DecompositionError(DdcnnError):
    """A decomposition does not fit the image."""


class ModelError(DdcnnError):
    """A network is unknown, or does not fit the (sub)image."""


class FusionError(DdcnnError):
    """Networks cannot be treated as one."""


class AggregationError(DdcnnError):
    """An aggregation is unknown, or does not fit the local probabilities."""


class TrainingError(DdcnnError):
    """A training cannot go on."""


class RankError(DdcnnError):
    """Another rank is gone, or cannot be reached."""


class EndedError(RankError):
    """Another rank has ended with an error, which it has told: this one ends with it."""


class RunError(DdcnnError):
    """A run folder is missing, incomplete, damaged or in the way."""


class ExportError(DdcnnError):
    """A network cannot be exported, or an exported file cannot be used."""


class ExplanationError(DdcnnError):
    """A decision cannot be explained."""


class EngineError(DdcnnError):
    """Workers cannot be started, or are gone."""


class InterruptionError(DdcnnError):
    """A signal asked to end; what was done is in the run's checkpoints.

    Attributes
    ----------
    signal
        Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number


def in_one_line(error: BaseException) -> str:
    r"""Return what an error says, to be quoted: one line; of a library's, at most 300 characters and no frames of C++.

    >>> in_one_line(RuntimeError("size is too large\nException raised from f at g.cpp:1 (most recent call first):"))
    'size is too large'
    >>> in_one_line(MemoryError())
    'MemoryError'
    """
    if isinstance(error, DdcnnError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it ends the program with sys.exit({error.code!r})"
    text = " ".join(str(error).partition("Exception raised from")[0].split())
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was not enough memory: of a CPU PyTorch says so in words alone.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    (True, True)
    >>> is_out_of_memory(RuntimeError("could not create a primitive"))
    True
    >>> is_out_of_memory(RuntimeError("could not create a primitive descriptor: the type is not supported"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # of PyTorch, not imported here
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the closest valid word, and all valid words.

    >>> nearest("vgg", ["vgg9", "resnet20"])
    "did you mean 'vgg9'? (one of: resnet20, vgg9)"
    >>> nearest("zzz", ["vgg9", "resnet20"])
    'one of: resnet20, vgg9'
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listing = f"one of: {', '.join(names)}"
    return f"did you mean '{close[0]}'? ({listing})" if close else listing

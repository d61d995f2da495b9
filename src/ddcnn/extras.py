"""Packages that only some need: what to install, said in one line, where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ddcnn.errors import DdcnnError


def install(extra: str) -> str:
    """Return the command that installs an extra.

    >>> install("ray")
    "pip install 'ddcnn[ray]'"
    """
    return f"pip install 'ddcnn[{extra}]'"


@contextmanager
def needed(why: str, extra: str, error: type[DdcnnError]) -> Iterator[None]:
    """Turn an `ImportError` into an error that says what needs the package, and which extra brings it.

    Examples
    --------
    >>> with needed("a store needs more packages", "large", DdcnnError):
    ...     import a_package_that_is_not_here
    Traceback (most recent call last):
    ...
    ddcnn.errors.DdcnnError: a store needs more packages: pip install 'ddcnn[large]' (No module named 'a_package_that_is_not_here')
    """  # noqa: E501 - the message
    try:
        yield
    except ImportError as reason:
        raise error(f"{why}: {install(extra)} ({reason})") from None

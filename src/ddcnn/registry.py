"""`Registry`: things by name, and anything of the user's own as ``module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Generic, TypeVar

from ddcnn.errors import DdcnnError, in_one_line, nearest

Entry = TypeVar("Entry")
_OURS = Path(__file__).parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


class Registry(MutableMapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order in which they were registered.

    Parameters
    ----------
    kind
        What messages call an entry, such as ``"model"``.
    error
        What is raised for a name that cannot be used.
    entries
        Those to begin with.
    of
        What was imported by a name ``module:function`` should be one of these.
    adapt
        Makes an entry of what was imported by a name ``module:function``; it raises a `DdcnnError` if it cannot.
    families
        Makes an entry of the rest of a name ``family:rest``, by the family: nothing of the user's own is imported.

    Examples
    --------
    >>> shapes = Registry("shape", DdcnnError, {"square": 4, "triangle": 3})
    >>> shapes.find("triangle"), list(shapes)
    (3, ['square', 'triangle'])
    >>> shapes.find("squares")
    Traceback (most recent call last):
    ...
    ddcnn.errors.DdcnnError: shape 'squares' is unknown: did you mean 'square'? (one of: square, triangle); or give module:function
    >>> Registry("shape", DdcnnError, shapes, of=int).find("json:dumps")
    Traceback (most recent call last):
    ...
    ddcnn.errors.DdcnnError: shape 'json:dumps' is a function, not a builtins.int
    """  # noqa: E501 - the message

    def __init__(
        self,
        kind: str,
        error: type[DdcnnError],
        entries: Mapping[str, Entry] | None = None,
        *,
        of: type[Entry] | None = None,
        adapt: Callable[[str, Any], Entry] | None = None,
        families: Mapping[str, Callable[[str], Entry]] | None = None,
    ) -> None:
        self.kind, self.error, self._of, self._adapt = kind, error, of, adapt
        self._families = dict(families or {})
        self._entries: dict[str, Entry] = dict(entries or {})

    def __getitem__(self, name: str) -> Entry:
        """Return a registered entry."""
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    def __delitem__(self, name: str) -> None:
        """Remove an entry."""
        del self._entries[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        """Register an entry.

        Raises
        ------
        DdcnnError
            The name is taken, or holds a colon, which is for ``module:function``.
        """
        if not name or ":" in name:
            raise self.error(f"the name of a {self.kind} should be a word, got {name!r}")
        if name in self._entries:
            raise self.error(f"there is already a {self.kind} {name!r}; choose another name")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers what it decorates."""

        def decorate(entry: Entry) -> Entry:
            self[name] = entry
            return entry

        return decorate

    def is_foreign(self, name: str) -> bool:
        """Tell whether a name stands for code of the user's own, which `find` would import."""
        family, colon, _ = name.partition(":")
        return name not in self._entries and bool(colon) and family not in self._families

    def find(self, name: str) -> Entry:
        """Return the entry of that name, or import ``module:function``, which runs the module's code.

        Raises
        ------
        DdcnnError
            The name is unknown, or the import fails.
        """
        if name in self._entries:
            return self._entries[name]
        family, colon, rest = name.partition(":")
        if colon and family in self._families:
            return self._families[family](rest)
        if not self.is_foreign(name):
            hint = nearest(name, self._entries)
            families = "".join(f"{family}:NAME, " for family in self._families)
            raise self.error(f"{self.kind} {name!r} is unknown: {hint}; or give {families}module:function")
        found = import_by_name(name, self.kind, self.error)
        if self._of is not None and not isinstance(found, self._of):
            wanted = f"{self._of.__module__}.{self._of.__name__}"
            raise self.error(f"{self.kind} {name!r} is a {type(found).__name__}, not a {wanted}")
        entry: Entry = found if self._adapt is None else self._adapt(name, found)
        return entry


def is_module(name: str) -> bool:
    """Tell whether a module may be there, installed or in the current folder; nothing is imported.

    >>> is_module("json.decoder"), is_module("no_such_module")
    (True, False)
    """
    return _is_installed(name) or _is_here(name)


def import_by_name(name: str, kind: str, error: type[DdcnnError]) -> Any:
    """Import ``module:function``, from the current folder if there is no such module elsewhere.

    That folder is searched for modules from then on, after all others, as the module may import its neighbours.
    """
    module, _, attribute = name.partition(":")
    if not _is_installed(module) and _is_here(module):
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as reason:  # a module may raise anything, or be a script that ends the program
        raise error(f"{kind} {name!r} cannot be imported: {in_one_line(reason)}{where(reason)}") from None
    return found


def code_digest(name: str) -> str | None:
    """Return the SHA-256 of the file in which ``module:function`` is, once it was imported; None: it is in no file."""
    module = sys.modules.get(name.partition(":")[0])
    file = getattr(module, "__file__", None)
    try:
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def where(reason: BaseException) -> str:
    """Say in which line of the user's code an error was raised, if that is not in the error itself; else nothing.

    What such code called of PyTorch and the like is not looked at; but if it called ddcnn, that is where it was raised.
    """
    if isinstance(reason, SyntaxError):
        return ""
    lines = [line for line in traceback.extract_tb(reason.__traceback__) if not line.filename.startswith("<frozen")]
    ours = [n for n, line in enumerate(lines) if Path(line.filename).is_relative_to(_OURS)]
    called = lines[ours[-1] + 1 :] if ours else lines
    own = [line for line in called if not any(Path(line.filename).is_relative_to(folder) for folder in _LIBRARIES)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _is_here(module: str) -> bool:
    top = module.partition(".")[0]
    if not top.isidentifier():
        return False
    with suppress(FileNotFoundError):  # the current folder was removed
        spec = PathFinder.find_spec(top, [str(Path.cwd())])
        return spec is not None and spec.has_location  # a folder without __init__.py is no module
    return False


def called(kind: str, error: type[DdcnnError]) -> Callable[[str, Any], Any]:
    """Return an ``adapt`` for a registry of functions: what was imported should be one."""

    def adapt(name: str, found: Any) -> Any:
        if not callable(found):
            raise error(f"{kind} {name!r} is a {type(found).__name__}, not a function")
        return found

    return adapt

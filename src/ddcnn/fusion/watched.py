"""What the code of a network reads beside parameters, buffers and its input: all of it must be plain to be watched.

These are the attributes of its layers and of their classes, and what its own functions read from modules and closures.
Code of PyTorch, of the libraries of networks and of Python itself is taken to read nothing that changes.
"""

from __future__ import annotations

import dis
import enum
import logging
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from operator import is_

import torch
from torch import nn

from ddcnn.fusion.structural_equality import options

_KNOWN = {
    "torch",
    "ddcnn",
    "timm",
    "torchvision",
    "monai",
    "transformers",
    "einops",
    "numpy",
    "jaxtyping",
    *sys.stdlib_module_names,
}
_ATOMS = frozenset({
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type, types.ModuleType),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(torch.dtype, torch.device, torch.memory_format, torch.layout),
})  # fmt: skip
_READS = ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM")
_DEPTH = 20
_NOTHING = object()


class UnwatchableError(Exception):
    """Something cannot be told from what it was before."""


class Watch:
    """Tells whether all that the code of a network reads is as it was.

    Most of it cannot change but by being replaced, which is quickly seen; where something was, values are compared.

    Parameters
    ----------
    templates
        Networks or layers whose code runs.

    Raises
    ------
    UnwatchableError
        The code reads what may have a state that cannot be seen, such as a generator of random numbers.
    """

    def __init__(self, *templates: nn.Module) -> None:
        self._templates = templates
        sources = _Sources()
        for layer in (layer for template in templates for layer in template.modules()):
            sources.add_class(type(layer))
            for value in options(layer).values():
                sources.add(value)
        self._places = sources.places
        self._before = self._read()
        self._remember()

    def is_as_before(self) -> bool:
        """Tell whether it is as when this was last asked, or as at first; it may raise an `UnwatchableError`."""
        if self._nothing_was_replaced():
            return True
        before, self._before = self._before, self._read()
        self._remember()
        return len(self._before) == len(before) and all(map(same, self._before, before))

    def _read(self) -> list[object]:
        found: list[object] = []
        layers = [layer for template in self._templates for layer in template.modules()]
        seen = set(map(id, layers))
        for layer in layers:
            for name, value in options(layer).items():
                found.append(name)
                found.append(value if type(value) in _ATOMS else plain(value, seen))
        found += [plain(place(), seen) for place in self._places]
        return found

    def _remember(self) -> None:
        """Keep the objects that were read, and apart those that can change in themselves."""
        layers = [layer for template in self._templates for layer in template.modules()]
        self._seen = frozenset(map(id, layers))
        held = [kind for layer in layers for kind in (vars(layer), layer._modules)]
        self._held = [(one, [*one], [*one.values()]) for one in held]
        self._found = [place() for place in self._places]
        values = [value for layer in layers for value in options(layer).values()] + self._found
        changeable = [value for value in values if not _is_fixed(value, self._seen)]
        self._lists = [
            (v, [*v]) for v in changeable if type(v) is list and all(_is_fixed(one, self._seen) for one in v)
        ]
        known = {id(one) for one, _ in self._lists}
        self._others = [value for value in changeable if id(value) not in known]
        self._plain = self._plainly()

    def _plainly(self) -> list[object]:
        seen = set(self._seen)
        return [plain(value, seen) for value in self._others]

    def _nothing_was_replaced(self) -> bool:
        for held, names, values in self._held:
            if len(held) != len(names) or [*held] != names or not all(map(is_, held.values(), values)):
                return False
        for found, items in self._lists:
            if len(found) != len(items) or not all(map(is_, found, items)):
                return False
        for place, value in zip(self._places, self._found, strict=True):
            if place() is not value:
                return False
        return not self._others or all(map(same, self._plainly(), self._plain))


def _is_fixed(value: object, layers: frozenset[int]) -> bool:
    """Tell whether a value of `plain` holds what it holds for ever."""
    kind = type(value)
    if kind in _ATOMS or isinstance(value, enum.Enum | type | logging.Logger) or id(value) in layers:
        return True
    if isinstance(value, tuple | frozenset):
        return all(_is_fixed(one, layers) for one in value)
    return isinstance(value, partial) and _is_fixed((value.func, value.args), layers) and not value.keywords


def plain(value: object, seen: set[int], depth: int = _DEPTH) -> object:
    """Return a value as one that stays as it is and is compared by what it holds.

    Parameters
    ----------
    seen
        Identities of objects that are looked at already, which is done once.

    Raises
    ------
    UnwatchableError
        It may hold what cannot be seen.
    """
    kind = type(value)
    if kind in _ATOMS or isinstance(value, enum.Enum | type | logging.Logger):
        return value
    if not depth:
        raise UnwatchableError

    def inner(one: object) -> object:
        return plain(one, seen, depth - 1)

    if isinstance(value, tuple | list):
        return (kind, *map(inner, value))
    if isinstance(value, set | frozenset):
        return (kind, frozenset(map(inner, value)))
    if isinstance(value, dict):
        return (kind, *[(inner(k), inner(v)) for k, v in value.items()])
    if isinstance(value, partial):
        return (kind, inner((value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return (kind, value.__func__, inner(value.__self__))
    if id(value) in seen:
        return (kind, id(value))
    if not _shows_all(value):
        raise UnwatchableError
    seen.add(id(value))
    return (kind, inner(vars(value)))


class _Ordinary:
    """An object whose state is its attributes."""


def _shows_all(value: object) -> bool:
    """Tell whether all that an object holds is in its ``__dict__``: then it is no larger than one of any class."""
    kind = type(value)
    if isinstance(value, nn.Module) or not hasattr(value, "__dict__"):
        return False
    ordinary = kind.__basicsize__ == _Ordinary.__basicsize__ and not kind.__itemsize__
    return ordinary or kind is types.SimpleNamespace


def same(a: object, b: object) -> bool:
    """Tell whether two values of `plain` are the same; 1, 1.0 and True are not."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class _Sources:
    """Collects where functions of the user's own read what is no parameter of theirs."""

    def __init__(self) -> None:
        self.places: list[Callable[[], object]] = []
        self._seen: set[object] = set()

    def add(self, value: object) -> None:
        """Look at a value that code may call: a function, a class, or what holds some."""
        if isinstance(value, types.FunctionType):
            self._add_function(value)
        elif isinstance(value, types.MethodType):
            self.add(value.__func__)
        elif isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, partial):
            self.add(value.func)
        elif isinstance(value, property):
            self.add(value.fget)
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__)
        elif isinstance(value, list | tuple | dict):
            for one in value.values() if isinstance(value, dict) else value:
                if not isinstance(one, list | tuple | dict):
                    self.add(one)
        elif type(value) not in _ATOMS and _shows_all(value) and id(value) not in self._seen:
            self._seen.add(id(value))
            self.add_class(type(value))
            self.add(vars(value))

    def add_class(self, cls: type) -> None:
        """Look at the functions and the values of a class, and of those that it derives from."""
        for one in cls.__mro__:
            if _is_known(one.__module__) or id(one) in self._seen:
                continue
            self._seen.add(id(one))
            for name, value in vars(one).items():
                if isinstance(value, types.FunctionType | property | staticmethod | classmethod | type):
                    self.add(value)
                elif not (name.startswith("__") and name.endswith("__")) and not hasattr(type(value), "__get__"):
                    self.places.append(partial(_of_class, one, name))

    def _add_function(self, function: types.FunctionType) -> None:
        if _is_known(function.__module__) or id(function) in self._seen:
            return
        self._seen.add(id(function))
        for cell in function.__closure__ or ():
            self._add_place(partial(_of_cell, cell))
        for value in (function.__defaults__, function.__kwdefaults__):
            self._add_place(partial(_given, value))
        for code in _codes(function.__code__):
            read = frozenset(one.argval for one in dis.get_instructions(code) if one.opname in _READS)
            for one in dis.get_instructions(code):
                if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    self._add_place(partial(function.__globals__.get, one.argval), read)
                elif one.opname == "IMPORT_NAME":
                    self._add_place(partial(sys.modules.get, one.argval), read)

    def _add_place(self, place: Callable[[], object], read: frozenset[str] = frozenset()) -> None:
        """Watch a place; if it is a module, those of the names that the code reads from anything."""
        value = place()
        if isinstance(value, types.ModuleType):
            key = (value.__name__, read)
            if not _is_known(value.__name__) and key not in self._seen:
                self._seen.add(key)
                for name in read:
                    if name in vars(value):
                        self._add_place(partial(vars(value).get, name), read)
            return
        self.add(value)
        self.places.append(place)  # a function may be replaced by another one


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


def _is_known(module: str | None) -> bool:
    return str(module).partition(".")[0] in _KNOWN


def _of_class(cls: type, name: str) -> object:
    return vars(cls).get(name, _NOTHING)


def _of_cell(cell: types.CellType) -> object:
    try:
        value = cell.cell_contents
    except ValueError:
        return None  # not filled yet
    return None if isinstance(value, nn.Module | type) else value  # layers are watched; __class__ is a cell, too


def _given(value: object) -> object:
    return value

"""What labels may be, and what looks odd about them: said with counts, never changed."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from ddcnn.errors import DataError
from ddcnn.text import name_fault

_MISSING = frozenset({"nan", "none", "null", "na", "n/a", "nil", "?", "-", "undefined", "unknown"})
_VOID = 255  # what masks call pixels that belong to no class
_MOST = 2**16  # classes: more are a mistake, and would be made one by one


_known: ContextVar[tuple[str, ...]] = ContextVar("known", default=())


@contextmanager
def known_classes(classes: Sequence[str]) -> Iterator[None]:
    """Within it, images are read for a network that knows these classes: not each of them needs an image."""
    token = _known.set(tuple(classes))
    try:
        yield
    finally:
        _known.reset(token)


def may_lack_images(classes: Sequence[str]) -> bool:
    """Tell whether these are classes that a network knows already."""
    return tuple(classes) == _known.get() != ()


def check_classes(source: str, classes: Sequence[str]) -> None:
    """Raise a `DataError` unless there are at least two classes, of different names that can be kept."""
    if len(classes) < 2 and not (classes and classes[0] in _known.get()):
        raise DataError(f"{source}: at least 2 classes are needed, got {len(classes)}: {', '.join(classes)}")
    for name in classes:
        if fault := name_fault(name):
            raise DataError(f"{source}: the class {name[:40]!r} {fault}; rename it")
    name, count = Counter(classes).most_common(1)[0]
    if count > 1:
        raise DataError(f"{source}: {count} classes are called {name!r}; give each a name of its own")


def label_notes(classes: Sequence[str], counts: Sequence[int]) -> tuple[str, ...]:
    """Return what looks odd about the names of classes, a line each, with the number of images.

    >>> label_notes(["1", "01", "cat", "nan"], [30, 2, 5, 1])
    ("classes that look alike are kept apart: '1' (30 images), '01' (2 images)", "the class 'nan' (1 image) looks like a missing label")
    """  # noqa: E501 - the notes
    sizes = {
        name: f"{name!r} ({count:,} image{'' if count == 1 else 's'})"
        for name, count in zip(classes, counts, strict=True)
    }
    same = [", ".join(sizes[name] for name in names) for names in look_alike(classes)]
    lines = [f"classes that look alike are kept apart: {names}" for names in same]
    lines += [f"the class {sizes[name]} looks like a missing label" for name in classes if _meaning(name) in _MISSING]
    numbers = sorted(int(name) for name in classes if name.isascii() and name.isdigit() and len(name) < 10)
    if len(numbers) == len(classes) and numbers[-1] == _VOID and numbers[-2] < _VOID - 1:
        lines.append(f"the class {sizes[str(_VOID)]} may be what masks call void: no class at all")
    return tuple(lines)


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """Return names that a reader may take for one another: they differ in capitals, spaces or leading zeros.

    >>> look_alike(["p1", "P1", "p2", "01", "1"])
    [['p1', 'P1'], ['01', '1']]
    """
    alike = defaultdict(list)
    for name in names:
        alike[_meaning(name)].append(name)
    return [same for same in alike.values() if len(same) > 1]


def number_classes(source: str, labels: np.ndarray) -> tuple[str, ...]:
    """Return names for labels 0..K-1 that have none, or raise a `DataError` if they are not such.

    >>> number_classes("a.npz", np.array([1, 0, 2, 1]))
    ('0', '1', '2')
    """
    found, known = np.unique(labels), _known.get()
    if len(found) and known == tuple(map(str, range(len(known)))) and 0 <= int(found[0]) <= int(found[-1]) < len(known):
        return known
    classes = len(found)
    if classes and (int(found[0]) != 0 or int(found[-1]) != classes - 1 or classes > _MOST):
        shown = ", ".join(map(str, found[:5])) + (f", ..., {found[-1]}" if classes > 5 else "")
        raise DataError(
            f"{source}: labels should be 0, 1, ..., K-1, each of some image; got {classes} different: {shown}"
            f"{label_hint(found, classes)}"
        )
    return tuple(map(str, range(classes)))


def label_hint(found: np.ndarray, classes: int) -> str:
    """Return what to do about labels out of range, from their different values, ascending.

    >>> label_hint(np.array([1, 2, 3]), 3)
    '; they count from 1: give labels - 1'
    """
    low, high = int(found[0]), int(found[-1])
    if high == _VOID and len(found) > 1 and int(found[-2]) < _VOID - 1:
        return f"; {_VOID} is what masks call void, no class at all: leave these images out"
    if low >= 1 and high == low + len(found) - 1 and high - low < classes:
        return f"; they count from {low}: give labels - {low}"
    if low < 0:
        return "; leave out images whose label is negative, or number the classes from 0"
    return "; number them with numpy.unique(labels, return_inverse=True)"


def read_labels(name: str, labels: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels (n,) in 0..K-1 and the K class names; ``classes`` are the names, if they are known.

    Raises
    ------
    DataError
        They are neither integers 0..K-1 nor strings, or not one per image; ``name`` is what it calls them.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.dtype.kind in "buif" and bool(((labels != 0).sum(1) == 1).all())
        hint = "; these are one-hot: give labels.argmax(1)" if one_hot else "; one class per image"
        raise DataError(f"{name}: labels should have shape (n,) or (n, 1), got {labels.shape}{hint}")
    try:
        names = None if classes is None else tuple(texts(np.atleast_1d(classes)))
        words = texts(labels) if labels.dtype.kind in "SU" else None
    except UnicodeDecodeError:
        raise DataError(f"{name}: labels or classes are bytes that are no UTF-8; give strings") from None
    if words is not None:
        names = names or tuple(sorted(set(words)))
        unknown = sorted(set(words) - set(names))
        if unknown:
            raise DataError(f"{name}: the label {unknown[0]!r} is not one of the classes {', '.join(names)}")
        number = {name: k for k, name in reversed([*enumerate(names)])}
        return np.array([number[label] for label in words], dtype=np.int64), names
    if labels.dtype.kind not in "bui":
        raise DataError(
            f"{name}: labels should be integers from 0 or strings, got {labels.dtype}; {_type_hint(labels)}"
        )
    if labels.size and int(labels.max()) >= 2**31:
        raise DataError(f"{name}: labels should be 0, 1, ..., K-1, got {labels.max()}; number the classes from 0")
    return labels.astype(np.int64), names or number_classes(name, labels)


def _type_hint(labels: np.ndarray) -> str:
    """Return what to do about labels that are neither integers nor strings.

    >>> _type_hint(np.array([0.0, np.nan, 1.0]))
    'NaN, of which there are 1, is no class: leave these images out'
    >>> _type_hint(np.array([0.5, 1.0])), _type_hint(np.array([0.0, 1.0]))
    ('0.5 is no number of a class: give classes', 'use astype(int)')
    """
    if labels.dtype.kind != "f":
        return "use astype(int)"
    if missing := int(np.isnan(labels).sum()):
        return f"NaN, of which there are {missing:,}, is no class: leave these images out"
    odd = labels[labels != np.floor(labels)]
    return f"{odd[0]:g} is no number of a class: give classes" if len(odd) else "use astype(int)"


def texts(values: np.ndarray) -> list[str]:
    """Return strings, decoded if they are bytes, whose ``str`` would be ``b'...'``."""
    return [one.decode() if isinstance(one, bytes) else str(one) for one in values.tolist()]


def _meaning(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = " ".join("".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc")).split())
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(number) if math.isfinite(number) else text

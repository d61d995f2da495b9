"""Numbers that decompositions are described by, checked where they come in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ddcnn.errors import DecompositionError

MOST_SUBDOMAINS = 2**16  # of decompositions whose subdomains are made one by one


def by(numbers: Iterable[int]) -> str:
    """Write numbers along axes: ``2x2``."""
    return "x".join(str(n) for n in numbers)


def counts(name: str, value: object, example: str, *, axes: Sequence[int]) -> tuple[int, ...]:
    """Return counts, 1 or more each.

    Parameters
    ----------
    name, example
        What messages call the decomposition, and how it is written.
    value
        A number, or several.
    axes
        How many there may be.

    Raises
    ------
    DecompositionError
        They are something else.
    """
    many = value if isinstance(value, list | tuple) else (value,)
    right = all(isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in many)
    if not right or len(many) not in axes:
        shown = by(many) if right else repr(value)
        raise DecompositionError(
            f"{name} needs {_words(axes)}, each 1 or more, got {shown:.80}; write for example {example}"
        )
    return tuple(many)


def whole_number(name: str, what: str, value: object) -> int:
    """Return a seed: a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DecompositionError(f"{name}: {what} should be a whole number, 0 or more, got {value!r:.80}")
    return value


def _words(axes: Sequence[int]) -> str:
    return f"{' or '.join(map(str, axes))} number{'' if tuple(axes) == (1,) else 's'}"

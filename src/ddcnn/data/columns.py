"""What a list of files calls its columns: file, label, split and group, in a CSV file or in a table in memory.

Names that are not known are never passed over without a word: a misspelt ``group`` would tear patients apart.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.errors import DataError, nearest

COLUMNS = ("file", "label", "split", "group")
_PART = re.compile(r"(train|val|test|dev)(?:ing|id|idation)?(?:[-_ ]?(?:set|data|images|split))?", re.IGNORECASE)
_PARTS = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_LIKE = 0.75  # how alike a name is that was probably meant: "groups" for "group", not "age"


def known_columns(
    source: str, names: Sequence[str], needed: Sequence[str] = COLUMNS[:2]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the name that each known column has, and a note on those that are not used.

    Capitals and spaces around a name make no difference.

    Raises
    ------
    DataError
        A needed column is missing, one is there twice, or one is called almost like split or group, which is missing.

    >>> known_columns("t.csv", ["File", "label ", "age"])
    ({'file': 'File', 'label': 'label '}, ('columns that are not used: age',))
    >>> known_columns("t.csv", ["file", "label", "groups"])
    Traceback (most recent call last):
    ...
    ddcnn.errors.DataError: t.csv: the column 'groups' is not known: did you mean 'group'? Rename it, or leave it out
    """
    found: dict[str, str] = {}
    for name in names:
        plain = name.strip().casefold()
        if plain in COLUMNS:
            if plain in found:
                raise DataError(f"{source} has two columns {plain}; keep one of them")
            found[plain] = name
    if any(name not in found for name in needed):
        got = ", ".join(names)[:200] or "nothing"
        wanted, apart = " and ".join(needed), ""
        if len(names) == 1 and (other := re.search(r"[;\t|]", names[0])):
            apart = f", separated by {_SEPARATORS[other[0]]}; save it with commas"
        raise DataError(
            f"{source}: there should be the columns {wanted}, and perhaps split and group; got {got}{apart}"
        )
    others = [name for name in names if name not in found.values()]
    return found, unused(source, "column", others, COLUMNS[2:], found)


def unused(
    source: str, kind: str, names: Sequence[str], optional: Sequence[str], found: Container[str] = ()
) -> tuple[str, ...]:
    """Return a note on names that are not used, if there are any.

    Parameters
    ----------
    kind
        What messages call a name: ``"column"``.
    optional, found
        Names that would be used, and those of them that are there.

    Raises
    ------
    DataError
        One is called almost like an optional name that is missing.
    """
    missing = [name for name in optional if name not in found]
    for name in names:
        if like := difflib.get_close_matches(name.strip().casefold(), missing, 1, _LIKE):
            raise DataError(
                f"{source}: the {kind} {name!r} is not known: did you mean {like[0]!r}? Rename it, or leave it out"
            )
    return (f"{kind}s that are not used: {', '.join(name.strip() for name in names)[:200]}",) if names else ()


def part_of(source: str, where: str, value: str) -> str:
    """Return the part that a value of the column split means: train, validation or test.

    >>> part_of("t.csv", "line 2", " Val")
    'validation'
    """
    found = part_named(value.strip())
    if found is None:
        plain = value.strip().lower()
        raise DataError(f"{source}, {where}: split {plain!r} is unknown: {nearest(plain, _PARTS)}")
    return found


def part_named(name: str) -> str | None:
    """Return which part of a data set is called so, in a table or as a folder; None: it is no name of a part.

    >>> part_named("Training"), part_named("valid"), part_named("test_set"), part_named("trainer")
    ('train', 'validation', 'test', None)
    """
    match = _PART.fullmatch(name)
    return _PARTS[match[1].lower()] if match else None


def official_part(source: str, parts: Sequence[str], name: str) -> Int64[Tensor, " m"] | None:
    """Return the samples of an official part, of the part of each sample; None: there is none.

    Raises
    ------
    DataError
        There are parts, but none to train on.
    """
    indices = [i for i, part in enumerate(parts) if part == name]
    if indices and "train" not in parts:
        raise DataError(f"{source} has rows of split {name} that can be used, but none of split train")
    return torch.tensor(indices) if indices else None


def note_of_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Return a note where a column split says train everywhere: what is not trained on is drawn from these.

    >>> note_of_parts(["train", "train"]), note_of_parts(["train", "test"]), note_of_parts(["", ""])
    (('split is train everywhere, so images to test and to validate on are drawn from these',), (), ())
    """
    if set(parts) != {"train"}:
        return ()
    return ("split is train everywhere, so images to test and to validate on are drawn from these",)


def check_twice(source: str, files: Sequence[tuple[str, str, Path]]) -> None:
    """Raise a `DataError` if a file is listed twice: of each, where it is listed, its name there, and the file."""
    seen: dict[Path, str] = {}
    for where, name, file in files:
        if file in seen:
            raise DataError(f"{source} lists {name!r} twice, in {seen[file]} and {where}; list every file once")
        seen[file] = where

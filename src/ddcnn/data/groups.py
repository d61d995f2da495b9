"""Samples that belong together, such as the images of one patient: a split keeps each group in one part.

Otherwise a network is tested on patients whose other images it has learned from, and looks better than it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.data.dataset import Dataset
from ddcnn.data.labels import look_alike
from ddcnn.errors import DataError

_MOST_FOLDS = 10  # of which some are one part: the finest fraction is a tenth
_MOST_LOOKS = 50_000  # at a group and a fold: more take seconds, and so many groups need no care to be alike
_TRIES = 5  # divisions that are drawn until one suits
_MOST_SHOWN = 3  # groups that look alike
_NEAR = 0.5  # how far from the fraction suits, as a part of it

_Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def numbered_groups(name: str, values: np.ndarray, samples: int) -> Int64[Tensor, " n"]:
    """Return the group of each sample as a number from 0.

    Parameters
    ----------
    name
        What messages call the data.
    values
        (n,) or (n, 1): integers or strings, equal for samples that belong together.

    Raises
    ------
    DataError
        They are of another kind or number, or missing or empty for a sample.

    >>> numbered_groups("scans", np.array(["ann", "bob", "ann"]), 3).tolist()
    [0, 1, 0]
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "T":  # NumPy's own strings
        values = values.astype(str)
    if values.dtype.kind == "O":
        values = np.array([str(one) for one in values]) if all(isinstance(one, str) for one in values) else values
    if values.shape != (samples,):
        raise DataError(f"{name}: groups should have shape ({samples},), one per image, got {values.shape}")
    if values.dtype.kind not in "buiSU":
        raise DataError(f"{name}: groups should be integers or strings, got {values.dtype}; none may be missing")
    if values.dtype.kind in "US" and len(empty := np.flatnonzero(np.strings.str_len(np.strings.strip(values)) == 0)):
        raise DataError(
            f"{name}: the group of image {empty[0]} is empty, and of {len(empty):,} in all; give every image a group, "
            "or none"
        )
    return torch.from_numpy(np.unique(values, return_inverse=True)[1].astype(np.int64))


def with_groups(dataset: Dataset, values: np.ndarray) -> Dataset:
    """Return a data set in which samples of equal values belong together, with a note on names that look alike.

    Parameters
    ----------
    values
        As of `numbered_groups`.
    """
    groups = numbered_groups(dataset.name, values, len(dataset.labels))
    return replace(dataset, groups=groups, notes=(*dataset.notes, *group_notes(values)))


def group_notes(values: np.ndarray) -> tuple[str, ...]:
    """Return what looks odd about the names of groups: two that may be one patient, who would be in two parts.

    >>> group_notes(np.array(["P1", "p1", "P2"])), group_notes(np.array([1, 2]))
    (("groups that look alike are kept apart: 'P1' and 'p1'",), ())
    """
    if values.dtype.kind not in "OSU":
        return ()
    alike = look_alike(sorted({str(value) for value in values.flat}))
    if not alike:
        return ()
    shown = "; ".join(" and ".join(map(repr, names[:3])) for names in alike[:_MOST_SHOWN])
    more = f"; and {len(alike) - _MOST_SHOWN:,} more" if len(alike) > _MOST_SHOWN else ""
    return (f"groups that look alike are kept apart: {shown}{more}",)


def class_called(label: int, classes: Sequence[str] | None) -> str:
    """Return what messages call a class: its name, or its number where names are not known.

    >>> class_called(1, ("cat", "dog")), class_called(1, None)
    ("class 'dog'", 'class number 1')
    """
    return f"class number {label}" if classes is None else f"class {classes[label]!r}"


def draw_groups(
    indices: _Indices,
    labels: _Indices,
    groups: _Indices,
    fraction: float,
    seed: int,
    *,
    spare: int,
    parts: str,
    classes: Sequence[str] | None = None,
) -> tuple[_Indices, _Indices]:
    """Draw whole groups that hold about a fraction of the samples, in proportion to the classes: (left, drawn).

    By scikit-learn's StratifiedGroupKFold: of k folds, m are drawn, with m/k as near the fraction as can be; more,
    where a class would be in none of them. By its GroupShuffleSplit where the fraction is small, or groups are many.

    Parameters
    ----------
    spare
        Groups of each class that have to be left.
    parts
        What all parts are for, for messages.
    classes
        Names of the classes, for messages; None: they are called by their labels.

    Raises
    ------
    DataError
        A class has too few groups.
    """
    kinds = len(np.unique(labels[indices]))
    best: tuple[_Indices, _Indices] | None = None
    for attempt in range(5 * _TRIES):
        in_order = attempt < _TRIES  # of few groups those of one class may come last each time: then in any order
        if best is not None and not in_order:
            break
        for drawn in _candidates(indices, labels, groups, fraction, seed + attempt, in_order=in_order):
            if best is not None and len(drawn) >= len(best[1]):
                break
            left = np.setdiff1d(indices, drawn)
            if _least_groups(drawn, labels, groups, kinds) >= 1 and _least_groups(left, labels, groups, kinds) >= spare:
                best = left, drawn
                break
        if best is not None and abs(len(best[1]) / len(indices) - fraction) < _NEAR * fraction:
            break
    if best is None:
        raise _too_few(indices, labels, groups, parts, classes)
    return best


def group_folds(
    indices: _Indices, labels: _Indices, groups: _Indices, k: int, seed: int, classes: Sequence[str] | None = None
) -> list[_Indices]:
    """Divide samples into k parts of whole groups, as equal as that allows, in proportion to the classes.

    ``classes`` are their names, for messages.

    Raises
    ------
    DataError
        There are fewer groups, or a class has so few that it would be missing in a part.
    """
    count = len(np.unique(groups[indices]))
    if not 2 <= k <= count:
        raise DataError(f"the number of folds should lie in 2..{count}, the number of groups, got {k}")
    kinds = len(np.unique(labels[indices]))
    for attempt in range(_TRIES):
        dealt = _folds(indices, labels, groups, k, seed + attempt)
        if dealt and all(_least_groups(part, labels, groups, kinds) for part in dealt):
            return dealt
    raise _too_few(indices, labels, groups, f"{k} folds", classes)


def groups_in_two(*parts: Int64[Tensor, "_"], groups: Int64[Tensor, " n"]) -> int:
    """Return how many groups have samples in more than one of the parts.

    >>> groups_in_two(torch.tensor([0, 1]), torch.tensor([2, 3]), groups=torch.tensor([5, 6, 6, 7]))
    1
    """
    found = torch.cat([groups[part].unique() for part in parts])
    return int((found.unique(return_counts=True)[1] > 1).sum())


def _candidates(
    indices: _Indices, labels: _Indices, groups: _Indices, fraction: float, seed: int, *, in_order: bool
) -> Iterator[_Indices]:
    """Yield samples of whole groups: about the fraction, then more; of folds, in the order as they are dealt."""
    from sklearn.model_selection import GroupShuffleSplit

    count = len(np.unique(groups[indices]))
    most = min(_MOST_FOLDS, count, int(np.bincount(labels[indices]).max()))
    share = min(Fraction(fraction).limit_denominator(most), Fraction(most - 1, most))
    if share > 0 and share.denominator * count <= _MOST_LOOKS:
        dealt = _folds(indices, labels, groups, share.denominator, seed)
        if not in_order:
            dealt = [dealt[n] for n in np.random.default_rng(seed).permutation(len(dealt))]
        for m in range(share.numerator, len(dealt)):
            yield np.concatenate(dealt[:m])
        return
    wanted = max(1, round(fraction * count))
    while wanted < count:
        splitter = GroupShuffleSplit(1, test_size=wanted, random_state=seed % 2**32)
        yield indices[next(splitter.split(indices, groups=groups[indices]))[1]]
        wanted += 1 + wanted // 2


def _least_groups(part: _Indices, labels: _Indices, groups: _Indices, kinds: int) -> int:
    """Return in how many groups of a part the rarest class is."""
    pairs = np.unique(np.stack([labels[part], groups[part]]), axis=1)[0]
    found, counts = np.unique(pairs, return_counts=True)
    return int(counts.min()) if len(found) == kinds else 0


def _folds(indices: _Indices, labels: _Indices, groups: _Indices, k: int, seed: int) -> list[_Indices]:
    """Return k parts of whole groups; none if each class has fewer samples than there are parts."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed % 2**32)
    kinds = np.unique(labels[indices], return_inverse=True)[1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer samples than folds: whoever calls looks after these
            return [indices[test] for _, test in splitter.split(indices, kinds, groups[indices])]
    except ValueError:  # each class has fewer samples than there are folds
        return []


def _too_few(
    indices: _Indices, labels: _Indices, groups: _Indices, parts: str, classes: Sequence[str] | None
) -> DataError:
    counts = {int(k): len(np.unique(groups[indices[labels[indices] == k]])) for k in np.unique(labels[indices])}
    rarest = min(counts, key=lambda k: counts[k])
    held = f"{counts[rarest]} group{'' if counts[rarest] == 1 else 's'}"
    return DataError(
        f"the images of {class_called(rarest, classes)} are of {held}, and a group is kept in one part: too few for "
        f"{parts}; add groups, or give the parts yourself"
    )

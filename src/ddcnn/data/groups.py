"""Samples that belong together, such as the images of one patient: a split keeps each group in one part.

Otherwise a network is tested on patients whose other images it has learned from, and looks better than it is.
"""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.errors import DataError

_MOST_FOLDS = 20  # of which some are one part: the finest fraction is a twentieth
_TRIES = 20  # divisions that are drawn until every class is in every part

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
        They are of another kind or number, or missing for a sample.

    >>> numbered_groups("scans", np.array(["ann", "bob", "ann"]), 3).tolist()
    [0, 1, 0]
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "O":
        values = np.array([str(one) for one in values]) if all(isinstance(one, str) for one in values) else values
    if values.shape != (samples,):
        raise DataError(f"{name}: groups should have shape ({samples},), one per image, got {values.shape}")
    if values.dtype.kind not in "buiSU":
        raise DataError(f"{name}: groups should be integers or strings, got {values.dtype}; none may be missing")
    return torch.from_numpy(np.unique(values, return_inverse=True)[1].astype(np.int64))


def draw_groups(
    indices: _Indices, labels: _Indices, groups: _Indices, fraction: float, seed: int, parts: str
) -> tuple[_Indices, _Indices]:
    """Draw whole groups that hold about a fraction of the samples, in proportion to the classes: (left, drawn).

    By scikit-learn's StratifiedGroupKFold: of k folds, m are drawn, with m/k as near to the fraction as it can be. By
    its GroupShuffleSplit where the fraction is below a twentieth.

    Parameters
    ----------
    parts
        What the two are for, for messages.

    Raises
    ------
    DataError
        Too few groups for each class to be in both.
    """
    from sklearn.model_selection import GroupShuffleSplit

    own, kinds = groups[indices], np.unique(labels[indices])
    count = len(np.unique(own))
    if count < 2:
        raise DataError(f"there is {count} group of images, at least 2 are needed for {parts}; give other groups")
    share = Fraction(fraction).limit_denominator(min(_MOST_FOLDS, count))
    for attempt in range(_TRIES):
        if 0 < share < 1:
            dealt = _folds(indices, labels, groups, share.denominator, seed + attempt)
            drawn = np.concatenate(dealt[: share.numerator])
        else:
            wanted = int(np.clip(round(fraction * count), 1, count - 1))
            splitter = GroupShuffleSplit(1, test_size=wanted, random_state=(seed + attempt) % 2**32)
            drawn = indices[next(splitter.split(indices, groups=own))[1]]
        left = np.setdiff1d(indices, drawn)
        if all(len(np.unique(labels[part])) == len(kinds) for part in (left, drawn)):
            return left, drawn
    raise _too_few(indices, labels, groups, parts)


def group_folds(indices: _Indices, labels: _Indices, groups: _Indices, k: int, seed: int) -> list[_Indices]:
    """Divide samples into k parts of whole groups, as equal as that allows, in proportion to the classes.

    Raises
    ------
    DataError
        There are fewer groups.
    """
    count = len(np.unique(groups[indices]))
    if not 2 <= k <= count:
        raise DataError(f"the number of folds should lie in 2..{count}, the number of groups, got {k}")
    for attempt in range(_TRIES):
        dealt = _folds(indices, labels, groups, k, seed + attempt)
        if all(len(np.unique(labels[np.setdiff1d(indices, part)])) == len(np.unique(labels[indices])) for part in dealt):
            return dealt
    raise _too_few(indices, labels, groups, f"{k} folds")


def groups_in_two(*parts: Int64[Tensor, " m"], groups: Int64[Tensor, " n"]) -> int:
    """Return how many groups have samples in more than one of the parts.

    >>> groups_in_two(torch.tensor([0, 1]), torch.tensor([2, 3]), groups=torch.tensor([5, 6, 6, 7]))
    1
    """
    found = torch.cat([groups[part].unique() for part in parts])
    return int((found.unique(return_counts=True)[1] > 1).sum())


def _folds(indices: _Indices, labels: _Indices, groups: _Indices, k: int, seed: int) -> list[_Indices]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed % 2**32)
    kinds = np.unique(labels[indices], return_inverse=True)[1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer samples than folds: whoever calls looks after these
            return [indices[test] for _, test in splitter.split(indices, kinds, groups[indices])]
    except ValueError:  # each class has fewer samples than there are folds
        raise _too_few(indices, labels, groups, f"{k} folds") from None


def _too_few(indices: _Indices, labels: _Indices, groups: _Indices, parts: str) -> DataError:
    counts = {int(k): len(np.unique(groups[indices[labels[indices] == k]])) for k in np.unique(labels[indices])}
    rarest = min(counts, key=lambda k: counts[k])
    held = f"{counts[rarest]} group{'' if counts[rarest] == 1 else 's'}"
    return DataError(
        f"the images of class number {rarest} are of {held}, and a group is kept in one part: too few for {parts}; add "
        "groups, or give the parts yourself"
    )

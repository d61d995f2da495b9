"""Which samples train, validate and test: stratified, seeded, disjoint.

Every class is in every part, because a class without training samples cannot be learned and one without test samples
is not measured. Parts that are drawn from each other use their own random stream: the test samples depend on the seed
and ``data.test`` alone, so runs that differ in another option are tested on the same samples. Where a data set has
groups, such as patients, all samples of a group are in one part (`ddcnn.data.groups`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.dataset import Dataset
from ddcnn.data.groups import class_called, draw_groups, group_folds
from ddcnn.errors import DataError
from ddcnn.seeds import derive_seed
from ddcnn.strict import parse_json

_PARTS = ("train", "validation", "test")
_MOST_VALIDATION = 2500

_Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Split:
    """Indices of the samples of each part, ascending; no sample is in two parts."""

    train: Int64[Tensor, " n_train"]
    validation: Int64[Tensor, " n_validation"]
    test: Int64[Tensor, " n_test"]

    def to_json(self) -> str:
        """Return the split as text; `from_json` gives back an equal one."""
        return json.dumps({part: getattr(self, part).tolist() for part in _PARTS})

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            Not JSON, a part is missing, an index is not a non-negative integer, or a sample is in two parts.
        """
        try:
            parts = parse_json(text)
        except ValueError as error:
            raise DataError(f"a split should be JSON, got {text[:40]!r}: {error}") from None
        if not isinstance(parts, dict) or set(parts) != set(_PARTS):
            found = ", ".join(map(str, parts)) if isinstance(parts, dict) else type(parts).__name__
            raise DataError(f"a split should have the parts {', '.join(_PARTS)}, got {found}")
        for part, indices in parts.items():
            if not isinstance(indices, list) or not all(type(i) is int and 0 <= i < 2**63 for i in indices):
                raise DataError(f"a split should list non-negative integers, got something else in {part!r}")
        every = [i for part in _PARTS for i in parts[part]]
        if len(set(every)) != len(every):
            raise DataError("a split should be disjoint, but a sample occurs twice")
        return cls(*(_sorted(np.array(parts[part], dtype=np.int64)) for part in _PARTS))


def make_split(dataset: Dataset, config: DataConfig, seed: int) -> Split:
    """Split a data set: official or stratified test, stratified validation, stratified limits.

    Parameters
    ----------
    dataset
        n samples of K classes.
    config
        ``folds`` and ``fold``, which take the place of the fractions and of official parts; else
        ``test`` (a fraction; unused if the publisher set a test set aside), ``validation`` (a fraction of the rest;
        None means the publisher's validation set, or else a tenth, at most 2,500) and the three limits.
    seed
        Equal seeds give equal splits.

    Raises
    ------
    DataError
        A class has too few samples to be in every part, or a limit is below the number of classes.
    """
    if config.folds is not None and config.fold is not None:
        return _fold(dataset, config, seed)
    labels = dataset.labels.numpy()
    groups = None if dataset.groups is None else dataset.groups.numpy()
    rest: _Indices = np.arange(len(labels), dtype=np.int64)
    given = dataset.official_validation if config.validation is None else None
    validation: _Indices = np.empty(0, np.int64) if given is None else given.numpy()
    rest = np.setdiff1d(rest, validation)
    if dataset.official_test is not None:
        test = dataset.official_test.numpy()
        rest = np.setdiff1d(rest, test)
        least, parts = (2, "training and validation") if given is None else (1, "training")
        _require(labels[rest], least, dataset.classes, "outside the official test set", parts)
    elif config.test == 0:
        test, least = rest[:0], 2 if given is None else 1
        _require(labels[rest], least, dataset.classes, "", "training and validation" if given is None else "training")
    else:
        least, parts = (3, "training, validation and test") if given is None else (2, "training and test")
        _require(labels[rest], least, dataset.classes, "", parts)
        wanted = round(config.test * len(rest))
        test_seed = derive_seed(seed, "test")
        rest, test = _drawn(rest, labels, groups, wanted, dataset.classes, spare=least - 1, seed=test_seed, parts=parts)
    train = rest
    if given is None:
        train, validation = _validation(rest, dataset, config, seed)
    return _cut_to_limits(train, validation, test, labels, config, seed)


def _fold(dataset: Dataset, config: DataConfig, seed: int) -> Split:
    """Return one fold of repeated stratified cross-validation, in which every sample is tested once per repeat."""
    assert config.folds is not None
    assert config.fold is not None
    labels = dataset.labels.numpy()
    repeat, number = divmod(config.fold, config.folds[0])
    _require(labels, max(3, config.folds[0]), dataset.classes, "", f"{config.folds[0]} folds")
    every = torch.arange(len(labels))
    shuffle = derive_seed(seed, "repeat", repeat)
    dealt = folds(every, dataset.labels, config.folds[0], shuffle, dataset.groups, dataset.classes)
    test = dealt[number].numpy()
    rest = np.setdiff1d(every.numpy(), test)
    seed = derive_seed(seed, "fold", config.fold)
    train, validation = _validation(rest, dataset, config, seed)
    return _cut_to_limits(train, validation, test, labels, config, seed)


def _validation(rest: _Indices, dataset: Dataset, config: DataConfig, seed: int) -> tuple[_Indices, _Indices]:
    """Return the training and the validation samples."""
    groups = None if dataset.groups is None else dataset.groups.numpy()
    wanted = min(len(rest) / 10, _MOST_VALIDATION) if config.validation is None else config.validation * len(rest)
    seed, parts = derive_seed(seed, "validation"), "training and validation"
    labels = dataset.labels.numpy()
    return _drawn(rest, labels, groups, round(wanted), dataset.classes, spare=1, seed=seed, parts=parts)


def _drawn(
    indices: _Indices,
    labels: _Indices,
    groups: _Indices | None,
    wanted: int,
    classes: Sequence[str] | None,
    *,
    spare: int,
    seed: int,
    parts: str,
) -> tuple[_Indices, _Indices]:
    """Draw about ``wanted`` samples, in whole groups if there are any, in proportion to the classes: (left, drawn)."""
    if groups is None:
        return _draw(indices, labels, wanted, spare=spare, seed=seed)
    return draw_groups(indices, labels, groups, wanted / len(indices), seed, spare=spare, parts=parts, classes=classes)


def _cut_to_limits(
    train: _Indices, validation: _Indices, test: _Indices, labels: _Indices, config: DataConfig, seed: int
) -> Split:
    return Split(
        _sorted(_limited(train, labels, config.limit_train, "limit_train", seed)),
        _sorted(_limited(validation, labels, config.limit_val, "limit_val", seed)),
        _sorted(_limited(test, labels, config.limit_test, "limit_test", seed)),
    )


def hold_out(
    indices: Int64[Tensor, " m"],
    labels: Int64[Tensor, " n"],
    fraction: float,
    seed: int,
    groups: Int64[Tensor, " n"] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held"]]:
    """Set a stratified fraction of some samples aside, whole groups if there are any.

    Parameters
    ----------
    indices
        The samples to divide.
    labels
        The labels of the whole data set; those of the samples are ``labels[indices]``.
    fraction
        Of the samples, in (0, 1). Every class keeps, and gives, at least one.
    seed
        Equal seeds give equal parts.
    classes
        Names of the classes, for messages; None: they are called by their labels.

    Returns
    -------
    kept, held
        Ascending, disjoint; together the samples.

    >>> kept, held = hold_out(torch.arange(10), torch.tensor([0] * 6 + [1] * 4), fraction=0.5, seed=0)
    >>> (held < 6).sum().item(), (held >= 6).sum().item()
    (3, 2)
    """
    if not 0 < fraction < 1:
        raise DataError(f"the fraction to hold out should lie between 0 and 1, got {fraction}")
    every = labels.numpy()
    _require_two(every[indices.numpy()], classes, "the part that is kept and the part that is held out")
    kept, held = _drawn(
        indices.numpy(),
        every,
        None if groups is None else groups.numpy(),
        round(fraction * len(indices)),
        classes,
        spare=1,
        seed=derive_seed(seed, "hold out"),
        parts="the part that is kept and the part that is held out",
    )
    return _sorted(kept), _sorted(held)


def folds(
    indices: Int64[Tensor, " m"],
    labels: Int64[Tensor, " n"],
    k: int,
    seed: int,
    groups: Int64[Tensor, " n"] | None = None,
    classes: Sequence[str] | None = None,
) -> list[Tensor]:
    """Divide samples into k stratified parts: disjoint, together the samples.

    The parts differ by at most one sample, in total and in each class; where there are groups, which are kept
    together, by as little as these allow. ``classes`` are their names, for messages.

    >>> [len(part) for part in folds(torch.arange(10), torch.tensor([0, 1] * 5), k=3, seed=0)]
    [4, 3, 3]
    """
    if not 2 <= k <= len(indices):
        raise DataError(f"the number of folds should lie in 2..{len(indices)}, the number of samples, got {k}")
    every = labels.numpy()
    _require_two(every[indices.numpy()], classes, f"{k} folds, each of which leaves one to learn from")
    seed = derive_seed(seed, "folds")
    if groups is not None:
        return [_sorted(part) for part in group_folds(indices.numpy(), every, groups.numpy(), k, seed, classes)]
    rng = np.random.default_rng(seed)
    dealt = np.concatenate([rng.permutation(members) for members in _by_class(indices.numpy(), every)])
    return [_sorted(dealt[start::k]) for start in range(k)]  # dealt like cards, so all sizes differ by at most one


def _require(
    labels: _Indices, least: int, classes: Sequence[str] | None, where: str, parts: str, *, every: bool = True
) -> None:
    """Look for so many samples of every class, or only of those that are there at all."""
    for label, count in enumerate(np.bincount(labels, minlength=len(classes or ()))):
        if count < least and (count or every):
            name = class_called(label, classes)
            images = f"{count} image{'' if count == 1 else 's'}{where and ' ' + where}"
            raise DataError(
                f"{name} has {images}, at least {least} are needed for {parts}; add images or remove the class"
            )


def _require_two(labels: _Indices, classes: Sequence[str] | None, parts: str) -> None:
    """Look for two samples of each class in what is divided, which need not have all classes of the data set."""
    _require(labels, 2, classes, f"among the {len(labels):,} training images", parts, every=False)


def _limited(indices: _Indices, labels: _Indices, limit: int | None, field: str, seed: int) -> _Indices:
    if limit is None or limit >= len(indices):
        return indices
    classes = len(np.unique(labels[indices]))
    if limit < classes:
        raise DataError(f"data.{field} = {limit} is below the number of classes, {classes}: every class needs a sample")
    return _draw(indices, labels, limit, spare=0, seed=derive_seed(seed, field))[1]


def _draw(indices: _Indices, labels: _Indices, wanted: int, *, spare: int, seed: int) -> tuple[_Indices, _Indices]:
    """Draw about ``wanted`` samples in proportion to the classes: (left, drawn)."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(one) for one in _by_class(indices, labels)]
    shares = _shares(np.array([len(one) for one in members]), wanted, spare)
    drawn = [one[:share] for one, share in zip(members, shares, strict=True)]
    left = [one[share:] for one, share in zip(members, shares, strict=True)]
    return np.concatenate(left), np.concatenate(drawn)


def _by_class(indices: _Indices, labels: _Indices) -> list[_Indices]:
    indices = np.sort(indices)
    return [indices[labels[indices] == label] for label in np.unique(labels[indices])]


def _shares(counts: _Indices, wanted: int, spare: int) -> _Indices:
    """Return how many samples each class gives: largest remainders, at least one, leaving at least ``spare``."""
    most = counts - spare
    total = int(np.clip(wanted, len(counts), most.sum()))
    quota = counts * total / counts.sum()
    shares: _Indices = np.clip(np.floor(quota).astype(np.int64), 1, most)
    while shares.sum() < total:
        shares[np.argmax(np.where(shares < most, quota - shares, -np.inf))] += 1
    while shares.sum() > total:  # the rule "at least one" gave rare classes more than their quota
        shares[np.argmax(np.where(shares > 1, shares - quota, -np.inf))] -= 1
    return shares


def _sorted(indices: _Indices) -> Int64[Tensor, " n"]:
    return torch.from_numpy(np.sort(indices))

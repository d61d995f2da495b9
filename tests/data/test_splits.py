from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcnn.config import DataConfig
from ddcnn.data import Dataset, Split, folds, hold_out, make_split
from ddcnn.errors import DataError


def _dataset(counts: list[int], test: list[int] | None = None) -> Dataset:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return Dataset(
        name="made",
        images=torch.zeros(len(labels), 1, 2, 3, dtype=torch.uint8),
        labels=shuffled,
        classes=tuple("abcdefgh"[: len(counts)]),
        official_test=None if test is None else torch.tensor(test),
    )


def _parts(split: Split) -> list[torch.Tensor]:
    return [split.train, split.validation, split.test]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=5),
    test=st.floats(0.1, 0.5),
    validation=st.floats(0.15, 0.5),
    seed=st.integers(0, 2**31 - 1),
)
def test_parts_are_disjoint_cover_all_and_keep_the_proportions(
    counts: list[int], test: float, validation: float, seed: int
) -> None:
    dataset = _dataset(counts)
    config = DataConfig(test=test, validation=validation)
    split = make_split(dataset, config, seed)
    n = sum(counts)

    assert sorted(torch.cat(_parts(split)).tolist()) == list(range(n))
    assert split.to_json() == make_split(dataset, config, seed).to_json()
    for part in _parts(split):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(part.tolist())
    assert len(split.test) == round(test * n)
    for label, count in enumerate(counts):
        tested, validated = (int((dataset.labels[part] == label).sum()) for part in (split.test, split.validation))
        assert abs(tested - count * len(split.test) / n) < 1
        left = count - tested
        assert abs(validated - left * len(split.validation) / (n - len(split.test))) < 1


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_every_class_is_in_every_part_however_rare(counts: list[int], seed: int) -> None:
    dataset = _dataset(counts)
    split = make_split(dataset, DataConfig(test=0.9, validation=0.01), seed)
    for part in _parts(split):
        assert set(dataset.labels[part].tolist()) == set(range(len(counts)))


def test_another_seed_gives_another_split() -> None:
    dataset = _dataset([50, 50])
    assert make_split(dataset, DataConfig(), 0).to_json() != make_split(dataset, DataConfig(), 1).to_json()


def test_validation_is_by_default_a_tenth_and_at_most_2500() -> None:
    assert len(make_split(_dataset([100, 100]), DataConfig(test=0.5), 0).validation) == 10
    assert len(make_split(_dataset([30000, 30000]), DataConfig(test=0.5), 0).validation) == 2500


def test_official_test_is_kept_as_published() -> None:
    dataset = _dataset([10, 10], test=[1, 3, 19])
    split = make_split(dataset, DataConfig(test=0.5, validation=0.2), 0)
    assert split.test.tolist() == [1, 3, 19]
    assert len(split.validation) == 3
    assert sorted(torch.cat(_parts(split)).tolist()) == list(range(20))


def test_limits_are_stratified_parts_of_the_unlimited_split() -> None:
    dataset = _dataset([60, 30])
    whole = make_split(dataset, DataConfig(), 3)
    limited = make_split(dataset, DataConfig(limit_train=12, limit_val=3, limit_test=6), 3)
    for part, all_of_it, wanted in zip(_parts(limited), _parts(whole), [[8, 4], [2, 1], [4, 2]], strict=True):
        assert set(part.tolist()) <= set(all_of_it.tolist())
        assert dataset.labels[part].bincount().tolist() == wanted


def test_the_test_samples_do_not_depend_on_other_options() -> None:
    dataset = _dataset([40, 40])
    one = make_split(dataset, DataConfig(), 0)
    other = make_split(dataset, DataConfig(validation=0.4, limit_train=5), 0)
    assert one.test.tolist() == other.test.tolist()


def test_a_limit_above_the_part_changes_nothing() -> None:
    dataset = _dataset([20, 20])
    assert (
        make_split(dataset, DataConfig(limit_train=999), 0).to_json() == make_split(dataset, DataConfig(), 0).to_json()
    )


def test_a_rare_class_is_named() -> None:
    with pytest.raises(DataError, match=r"class 'b' has 2 images, at least 3 are needed for training, validation and"):
        make_split(_dataset([5, 2]), DataConfig(), 0)


def test_a_class_that_is_in_the_official_test_only_is_named() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    dataset = Dataset("made", torch.zeros(5, 1, 2, 2), labels, ("a", "b"), official_test=torch.tensor([3, 4]))
    with pytest.raises(DataError, match="class 'b' has 0 images outside the official test set, at least 2 are needed"):
        make_split(dataset, DataConfig(), 0)


def test_a_limit_below_the_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.limit_val = 2 is below the number of classes, 3"):
        make_split(_dataset([20, 20, 20]), DataConfig(limit_val=2), 0)


def test_json_gives_back_the_split() -> None:
    split = make_split(_dataset([9, 7]), DataConfig(), 0)
    again = Split.from_json(split.to_json())
    for one, other in zip(_parts(split), _parts(again), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "should be JSON"),
        ("[1]", "should have the parts train, validation, test, got list"),
        ('{"train": []}', "should have the parts train, validation, test, got train"),
        ('{"train": [0.5], "validation": [], "test": []}', "non-negative integers, got something else in 'train'"),
        ('{"train": [], "validation": [-1], "test": []}', "non-negative integers, got something else in 'validation'"),
        ('{"train": [], "validation": [], "test": [true]}', "non-negative integers, got something else in 'test'"),
        (json.dumps({"train": [1, 2], "validation": [2], "test": []}), "should be disjoint"),
    ],
)
def test_a_damaged_split_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Split.from_json(text)


def test_hold_out_divides_the_given_samples_only() -> None:
    labels = torch.tensor([0, 1] * 30)
    indices = torch.arange(10, 50)
    kept, held = hold_out(indices, labels, 0.25, seed=7)
    assert sorted(kept.tolist() + held.tolist()) == indices.tolist()
    assert labels[held].bincount().tolist() == [5, 5]
    assert torch.equal(held, hold_out(indices.flip(0), labels, 0.25, seed=7)[1])  # the order given does not matter
    assert not torch.equal(held, hold_out(indices, labels, 0.25, seed=8)[1])


def test_hold_out_needs_two_of_a_class() -> None:
    with pytest.raises(DataError, match=r"class number 1 has 1 image among the 4 training images, at least 2 are"):
        hold_out(torch.arange(4), torch.tensor([0, 0, 0, 1]), 0.5, seed=0)
    with pytest.raises(DataError, match=r"between 0 and 1, got 1\.0"):
        hold_out(torch.arange(4), torch.tensor([0, 0, 1, 1]), 1.0, seed=0)


def test_a_class_that_is_rare_in_the_training_part_is_named() -> None:
    dataset = _dataset([20, 20, 3])
    train = make_split(dataset, DataConfig(), 0).train
    assert (dataset.labels[train] == 2).sum() == 1
    for divide in (hold_out, folds):
        how = {hold_out: 0.5, folds: 3}[divide]
        with pytest.raises(DataError, match=rf"^class 'c' has 1 image among the {len(train)} training images, at"):
            divide(train, dataset.labels, how, 0, None, dataset.classes)
        divide(train, torch.where(dataset.labels == 2, 1, dataset.labels), how, 0, None, dataset.classes)  # none of c


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(2, 30), min_size=2, max_size=5), k=st.integers(2, 4), seed=st.integers(0, 99))
def test_folds_are_disjoint_cover_all_and_are_even(counts: list[int], k: int, seed: int) -> None:
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    parts = folds(torch.arange(len(labels)), labels, k, seed)
    assert len(parts) == k
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        shares = [int((labels[part] == label).sum()) for part in parts]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("k", [1, 5])
def test_folds_need_samples(k: int) -> None:
    with pytest.raises(DataError, match=rf"folds should lie in 2\.\.4, the number of samples, got {k}"):
        folds(torch.arange(4), torch.tensor([0, 0, 1, 1]), k, seed=0)


def test_a_split_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(DataError, match="a split should be JSON"):
        Split.from_json("[" * 100_000)

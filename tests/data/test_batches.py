"""Batches: which samples, in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pytest
import torch
from torch import Tensor

from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batch import Batch
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.decomposition import Grid, Subimages


def _batches(samples: int = 30, *, chosen: int = 23, batch_size: int = 5, **options: object) -> Batches:
    """Return samples whose pixels and labels are their number."""
    inputs = torch.arange(samples).view(-1, 1, 1, 1).expand(-1, 2, 4, 5).contiguous()
    indices = torch.arange(samples - chosen, samples)
    return Batches(inputs, torch.arange(samples), indices, batch_size, **options)  # type: ignore[arg-type]


def _labels(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.targets.tolist() for batch in batches]


def _whole(images: Tensor, *arguments: Any, **options: Any) -> Batches:
    """Return batches of whole images."""
    subdomains = Grid((1, 1)).subdomains(images.shape[2:])
    return Batches(Resident(images), *arguments, subdomains=subdomains, **options)


def _pixels(batch: Batch) -> Tensor:
    assert isinstance(batch.inputs, Subimages)
    return batch.inputs.parts[0]


def _joined(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_an_epoch_has_each_sample_at_most_once() -> None:
    batches = _batches()
    drawn = _labels(batches.shuffled(1))
    seen = _joined(drawn)
    assert [len(labels) for labels in drawn] == [5, 5, 5, 5]  # three samples wait
    assert batches.steps == 4
    assert len(batches) == 23
    assert len(set(seen)) == 20
    assert set(seen) <= set(batches.indices.tolist())


def test_samples_that_wait_differ_from_epoch_to_epoch() -> None:
    batches = _batches()
    seen = {label for epoch in range(1, 6) for labels in _labels(batches.shuffled(epoch)) for label in labels}
    assert seen == set(batches.indices.tolist())


@pytest.mark.parametrize("chosen", [1, 4, 5])
def test_fewer_samples_than_a_batch_are_one_batch(chosen: int) -> None:
    batches = _batches(chosen=chosen)
    assert batches.steps == 1
    (labels,) = _labels(batches.shuffled(1))
    assert sorted(labels) == batches.indices.tolist()


def test_inputs_go_with_their_labels() -> None:
    batches = _batches(extras={"twice": 2 * torch.arange(30)})
    for batch in [*batches.shuffled(2), *batches.in_order(7)]:
        assert batch.inputs.shape[1:] == (2, 4, 5)
        assert torch.equal(batch.inputs[:, 1, 3, 4], batch.targets)
        assert torch.equal(batch.samples, batch.targets)
        assert torch.equal(batch.extras["twice"], 2 * batch.samples)


def test_order_depends_on_seed_and_epoch() -> None:
    first = _labels(_batches(seed=1).shuffled(1))
    assert first == _labels(_batches(seed=1).shuffled(1))
    assert first != _labels(_batches(seed=1).shuffled(2))
    assert first != _labels(_batches(seed=2).shuffled(1))
    assert sorted(_joined(first)) != _joined(first)


@pytest.mark.parametrize(("shape", "most"), [((3, 32, 32), 500), ((1, 64, 64, 32), 16), ((1, 128, 128, 64), 8)])
def test_few_large_samples_are_evaluated_at_once(shape: tuple[int, ...], most: int) -> None:
    """What a network makes of samples without being trained should need no more memory than its training."""
    inputs = torch.zeros(1).expand(600, *shape)
    batches = Batches(inputs, torch.zeros(600, dtype=torch.long), torch.arange(600), batch_size=8)
    with closing(batches.in_order()) as found:
        assert len(next(found)) == most


def test_in_order() -> None:
    batches = _batches()
    assert [len(labels) for labels in _labels(batches.in_order(10))] == [10, 10, 3]
    assert _joined(_labels(batches.in_order(10))) == batches.indices.tolist()


def test_augmentation_sees_only_shuffled_batches() -> None:
    ramp = torch.arange(6).view(1, 1, 1, 6).expand(40, 1, 3, 6).contiguous()
    batches = _whole(ramp, torch.zeros(40).long(), torch.arange(40), 8, augmentation=Augmentation((1,)))
    plain = torch.arange(6)
    assert all((_pixels(batch) == plain).all() for batch in batches.in_order())
    rows = torch.cat([_pixels(batch)[:, 0, 0] for batch in batches.shuffled(1)])
    mirrored = (rows == plain.flip(0)).all(1)
    assert ((rows == plain).all(1) | mirrored).all()
    assert 5 < int(mirrored.sum()) < 35


def test_augmentation_does_not_depend_on_subset_or_batch_size() -> None:
    pixels = torch.rand(30, 1, 4, 5, generator=torch.Generator().manual_seed(0))

    def augmented(indices: Tensor, batch_size: int) -> dict[int, Tensor]:
        options = {"seed": 4, "augmentation": Augmentation((0, 1), shift=2)}
        batches = _whole(pixels, torch.arange(30), indices, batch_size, **options)
        return {int(n): x for batch in batches.shuffled(3) for n, x in zip(batch.targets, _pixels(batch), strict=True)}

    every, some = augmented(torch.arange(30), 30), augmented(torch.arange(5, 25), 5)
    assert set(some) == set(range(5, 25))
    assert all(torch.equal(image, every[n]) for n, image in some.items())

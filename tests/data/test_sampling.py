"""Balanced epochs: each class equally often, and no sample again before the others of its class."""

from __future__ import annotations

import pytest
import torch

from ddcnn.data.batches import Batches
from ddcnn.data.sampling import balanced

LABELS = torch.tensor([0] * 30 + [1] * 5 + [2] * 1)


def _drawn(labels: torch.Tensor, seed: int) -> torch.Tensor:
    return balanced(torch.arange(100, 100 + len(labels)), labels, torch.Generator().manual_seed(seed)) - 100


def test_classes_are_equally_frequent() -> None:
    drawn = _drawn(LABELS, 0)
    assert torch.bincount(LABELS[drawn]).tolist() == [12, 12, 12]
    counts = torch.bincount(drawn, minlength=36)
    assert counts[:30].max() == 1  # of a frequent class none comes twice
    assert sorted(counts[30:35].tolist()) == [2, 2, 2, 3, 3]  # of a rare one all come before one comes again


def test_what_does_not_divide_is_given_to_each_in_turn() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3)[:7]
    sizes = {tuple(torch.bincount(labels[_drawn(labels, seed)]).tolist()) for seed in range(30)}
    assert sizes == {(3, 4), (4, 3)}


def test_epochs_differ_and_repeat() -> None:
    assert torch.equal(_drawn(LABELS, 3), _drawn(LABELS, 3))
    assert not torch.equal(_drawn(LABELS, 3), _drawn(LABELS, 4))
    assert not torch.equal(_drawn(LABELS, 3).sort().values, _drawn(LABELS, 4).sort().values)


@pytest.mark.parametrize("flag", [True, False])
def test_batches(flag: bool) -> None:
    images = torch.arange(40).view(-1, 1, 1, 1)
    labels = torch.tensor([0] * 4 + list(LABELS))  # the first four have no part
    batches = Batches(images, labels, torch.arange(4, 40), 9, seed=1, balanced=flag)
    drawn = [(batch.inputs, batch.targets) for batch in batches.shuffled(2)]
    assert [len(y) for _, y in drawn] == [9, 9, 9, 9]
    pixels, seen = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    assert torch.equal(labels[pixels.flatten()], seen)
    assert int(pixels.min()) >= 4
    assert torch.bincount(seen).tolist() == ([12, 12, 12] if flag else [30, 5, 1])

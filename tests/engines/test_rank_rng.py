"""What is drawn in the local CNNs differs from rank to rank, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddcnn.engines import ALONE, Ranks
from ddcnn.engines.rank_rng import RankRandomness

pytestmark = pytest.mark.usefixtures("seeded")
CPU = torch.device("cpu")


def drawn(ranks: Ranks, *, seeds: tuple[int, ...], numbers: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """Return what three steps after each seed draw in the local CNNs, and after them."""
    stream, own, common = RankRandomness(ranks), [], []
    for seed in seeds:
        torch.manual_seed(seed)
        for _ in range(3):
            with stream.drawn(CPU):
                own.append(torch.rand(numbers))
            common.append(torch.rand(3))
    return own, common


def test_ranks_draw_different_numbers_and_share_the_others() -> None:
    (first, common), (second, other) = (drawn(Ranks(rank, 2), seeds=(5,), numbers=3 + rank) for rank in range(2))
    torch.manual_seed(5)
    assert all(torch.equal(value, torch.rand(3)) for value in common)  # as if nothing was drawn in between
    assert all(torch.equal(a, b) for a, b in zip(common, other, strict=True))
    every = torch.cat([*first, *(value[:3] for value in second), *common]).tolist()
    assert len(set(every)) == len(every) == 27


def test_a_seed_determines_all() -> None:
    (a, _), (b, _) = drawn(Ranks(1, 2), seeds=(5, 6, 5)), drawn(Ranks(1, 2), seeds=(5,))
    assert all(torch.equal(x, y) for x, y in zip(a[:3], b, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(a[6:], b, strict=True))
    assert not torch.equal(a[3], b[0])


def test_alone_it_is_the_common_stream() -> None:
    own, common = drawn(ALONE, seeds=(5,))
    torch.manual_seed(5)
    assert torch.equal(torch.cat([own[0], common[0], own[1]]), torch.cat([torch.rand(3) for _ in range(3)]))


def test_a_seed_of_64_bits() -> None:
    (largest, _), (smaller, _) = (drawn(Ranks(1, 2), seeds=(seed,)) for seed in (2**64 - 1, 2**32 - 1))
    assert len({*torch.cat([*largest, *smaller]).tolist()}) == 18


def test_it_goes_on_from_its_state() -> None:
    expected, _ = drawn(Ranks(1, 2), seeds=(2**64 - 1,))
    first, second = RankRandomness(Ranks(1, 2)), RankRandomness(Ranks(1, 2))
    torch.manual_seed(2**64 - 1)
    with first.drawn(CPU):
        torch.rand(3)
    second.load(first.state())
    with second.drawn(CPU):
        assert torch.equal(torch.rand(3), expected[1])
    second.load({})
    with second.drawn(CPU):
        assert torch.equal(torch.rand(3), expected[0])
    assert RankRandomness(Ranks(1, 2)).state() == {}

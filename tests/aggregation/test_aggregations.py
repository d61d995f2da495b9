"""Average and vote, against plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ddcnn.aggregation import Average, Vote

SHAPES = [(5, 1, 2), (5, 4, 2), (7, 3, 5), (2, 16, 10), (1, 1, 3)]


def _probabilities(B: int, N: int, K: int, *, seed: int = 0) -> Tensor:
    return (2 * torch.randn(B, N, K, generator=torch.Generator().manual_seed(seed))).softmax(2)


def _vote(p: list[list[float]]) -> int:
    """Return the class with most votes; among those, the one with the largest summed probability."""
    K = len(p[0])
    votes = [sum(max(range(K), key=member.__getitem__) == k for member in p) for k in range(K)]
    tied = [k for k in range(K) if votes[k] == max(votes)]
    return max(tied, key=lambda k: math.fsum(member[k] for member in p))


@pytest.mark.parametrize("shape", SHAPES)
def test_average(shape: tuple[int, int, int]) -> None:
    p = _probabilities(*shape)
    expected = [
        [math.log(math.fsum(column) / shape[1]) for column in zip(*sample, strict=True)] for sample in p.tolist()
    ]
    torch.testing.assert_close(Average()(p), torch.tensor(expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_vote(shape: tuple[int, int, int]) -> None:
    for seed in range(20):
        p = _probabilities(*shape, seed=seed)
        assert Vote()(p).argmax(1).tolist() == [_vote(sample) for sample in p.tolist()]


@given(st.data())
def test_vote_with_ties(data: st.DataObject) -> None:
    N, K = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    # Eighths, so that ties of votes and of sums are frequent and sums are exact.
    eighths = [[data.draw(st.integers(0, 8)) for _ in range(K)] for _ in range(N)]
    p = [[k / 8 + (0.5 if i == n % K else 0) for i, k in enumerate(row)] for n, row in enumerate(eighths)]
    p = [[value / 16 for value in row] for row in p]
    scores = Vote()(torch.tensor([p], dtype=torch.float64))
    sums = [sum(row[k] for row in p) for k in range(K)]
    chosen, expected = int(scores.argmax(1)), _vote(p)
    assert chosen == expected or sums[chosen] == sums[expected]


def test_every_small_election() -> None:
    """Three classes and up to four members that are sure or nearly so: votes win, whatever the probabilities."""
    ballots = [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.34, 0.33, 0.33], [0.33, 0.34, 0.33], [0.05, 0.4, 0.55]]
    elections = [list(e) for N in range(1, 5) for e in itertools.product(ballots, repeat=N)]
    for election in elections:
        sums = sorted(sum(member[k] for member in election) for k in range(3))
        if min(b - a for a, b in itertools.pairwise(sums)) > 1e-6:
            assert int(Vote()(torch.tensor([election])).argmax(1)) == _vote(election), election


def test_a_vote_outweighs_any_probability() -> None:
    members = [[0.51, 0.49, 0.0]] * 3 + [[0.0, 1.0, 0.0]] * 2
    assert int(Vote()(torch.tensor([members])).argmax(1)) == 0


@pytest.mark.parametrize("aggregation", [Average(), Vote()])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_logarithms_of_probabilities(aggregation: nn.Module, shape: tuple[int, int, int]) -> None:
    scores = aggregation(_probabilities(*shape))
    assert scores.shape == (shape[0], shape[2])
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(shape[0]))
    torch.testing.assert_close(scores.softmax(1), scores.exp())


@pytest.mark.parametrize("aggregation", [Average(), Vote()])
def test_certain_members_give_finite_scores(aggregation: nn.Module) -> None:
    p = torch.eye(3)[[0, 0, 1]].unsqueeze(0)
    assert torch.isfinite(aggregation(p)).all()
    assert int(aggregation(p).argmax(1)) == 0


@pytest.mark.parametrize("aggregation", [Average(), Vote()])
def test_gradient_flows(aggregation: nn.Module) -> None:
    p = _probabilities(3, 2, 4).requires_grad_()
    aggregation(p)[:, 1].sum().backward()
    assert p.grad is not None
    assert (p.grad[..., 1] > 0).all()


@pytest.mark.parametrize("aggregation", [Average(), Vote()])
def test_order_of_members_does_not_matter(aggregation: nn.Module) -> None:
    p = _probabilities(4, 5, 3)
    torch.testing.assert_close(aggregation(p), aggregation(p.flip(1)))

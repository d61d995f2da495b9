"""Decisions without some subdomains, against plain Python on those that are left."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from ddcnn.aggregation import Average, Dense, Vote, build_aggregation
from ddcnn.aggregation.absent import checked, decide, drop, silence
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError

pytestmark = pytest.mark.usefixtures("seeded")
SETS = [part for count in range(1, 4) for part in itertools.combinations(range(4), count)]


def _damaged(missing: tuple[int, ...], B: int = 6, K: int = 3) -> tuple[Tensor, Tensor]:
    """Return probabilities of which missing rows are NaN, and the other rows alone."""
    p = (2 * torch.randn(B, 4, K)).softmax(2)
    left = torch.stack([p[:, n] for n in range(4) if n not in missing], 1)
    for n in missing:
        p[:, n] = math.nan
    return p, left


@pytest.mark.parametrize("missing", SETS)
def test_average_is_that_of_those_present(missing: tuple[int, ...]) -> None:
    p, left = _damaged(missing)
    expected = [[math.fsum(column) / len(sample) for column in zip(*sample, strict=True)] for sample in left.tolist()]
    torch.testing.assert_close(decide(Average(), p, missing).exp(), torch.tensor(expected))


@pytest.mark.parametrize("missing", SETS)
def test_vote_is_that_of_those_present(missing: tuple[int, ...]) -> None:
    p, left = _damaged(missing, B=40)
    expected = []
    for sample in left.tolist():
        votes = [sum(row.index(max(row)) == k for row in sample) for k in range(3)]
        expected.append(max(range(3), key=lambda k: (votes[k], math.fsum(row[k] for row in sample))))
    assert decide(Vote(), p, missing).argmax(1).tolist() == expected


def test_a_silent_row_would_still_vote() -> None:
    """Why those present vote alone: a uniform row is a vote for class 0."""
    p = torch.tensor([[[0.1, 0.9], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]])
    assert int(Vote()(silence(p, [0, 2, 3])).argmax()) == 0
    assert int(decide(Vote(), p, [0, 2, 3]).argmax()) == 1
    shares = torch.tensor([[0.7 / 3, 2 + 1.3 / 3]])  # of rows 1 and 3: votes, and sums of probabilities / (2 + 1)
    torch.testing.assert_close(decide(Vote(), p, [0, 2]).softmax(1), shares / shares.sum())


@pytest.mark.parametrize("features", ["probability", "log"])
@pytest.mark.parametrize("missing", SETS)
def test_a_new_dnn_is_the_product_of_experts_of_those_present(missing: tuple[int, ...], features: str) -> None:
    p, left = _damaged(missing)
    product = left.double().prod(1)
    scores = decide(Dense(4, 3, features=features), p, missing)
    torch.testing.assert_close(scores.double().softmax(1), product / product.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_trained_dnn_sees_a_uniform_row() -> None:
    dense = Dense(4, 3, hidden=(8,), shortcut=False)
    p, _ = _damaged((1, 2))
    filled = p.clone()
    filled[:, 1:3] = 1 / 3
    assert torch.equal(decide(dense, p, (2, 1)), dense(filled))


def test_an_aggregation_that_says_nothing_of_numbers_is_given_all_rows() -> None:
    class Mine(nn.Module):
        def forward(self, p: Tensor) -> Tensor:
            assert p.shape[1] == 4
            return p.sum(1)

    p, left = _damaged((3,))
    torch.testing.assert_close(decide(Mine(), p, [3]), left.sum(1) + 1 / 3)


@pytest.mark.parametrize("name", ["average", "vote", "dense"])
def test_with_nothing_missing_it_is_the_aggregation_itself(name: str) -> None:
    p, _ = _damaged(())
    aggregation = build_aggregation(name, 4, 3, AggregationConfig())
    assert torch.equal(decide(aggregation, p), aggregation(p))
    assert silence(p, []) is p


@pytest.mark.parametrize("aggregation", [Average(), Vote(), Dense(4, 3, shortcut=True)])
def test_the_gradient_passes_by_what_is_missing(aggregation: nn.Module) -> None:
    p = torch.randn(5, 4, 3).softmax(2).requires_grad_()
    decide(aggregation, p, [0, 2])[:, 1].sum().backward()
    assert p.grad is not None
    assert not p.grad[:, [0, 2]].any()
    assert p.grad[:, [1, 3], 1].abs().min() > 0


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ([4], "subdomain 4 cannot be missing: there is none; use 0 to 3"),
        ([0, -1], "subdomain -1 cannot be missing: there is none; use 0 to 3"),
        ([3, 2, 1, 0], "all 4 subdomains are missing; a decision needs at least 1"),
    ],
)
def test_what_cannot_be_missing(missing: list[int], message: str) -> None:
    with pytest.raises(AggregationError) as error:
        decide(Average(), torch.full((1, 4, 2), 0.5), missing)
    assert str(error.value) == message


def test_missing_subdomains_are_ordered() -> None:
    assert checked([3, 1, 3], 4) == (1, 3)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropped_rows_are_binomial_but_for_the_last_one(probability: float) -> None:
    """The number of dropped rows: each on its own, so binomial, and one is put back where all would go."""
    B, N, K = 40_000, 3, 4
    p = torch.randn(B, N, K).softmax(2)
    dropped = (drop(p, probability) == 1 / K).all(2)
    torch.testing.assert_close(drop(p, probability).sum(2), torch.ones(B, N))
    share = [math.comb(N, k) * probability**k * (1 - probability) ** (N - k) for k in range(N + 1)]
    expected = [share[0], share[1], share[2] + share[3], 0.0]
    found = torch.bincount(dropped.sum(1), minlength=N + 1) / B
    for value, wanted in zip(found.tolist(), expected, strict=True):
        assert abs(value - wanted) <= 5 * math.sqrt(wanted * (1 - wanted) / B)
    each = probability - probability**N / N  # the one put back is any of them
    assert (dropped.float().mean(0) - each).abs().max() < 5 * math.sqrt(each * (1 - each) / B)


def test_what_is_not_dropped_stays_bit_by_bit() -> None:
    p = torch.randn(50, 4, 3).softmax(2)
    after = drop(p, 0.5)
    kept = (after != 1 / 3).any(2)
    assert 50 < int(kept.sum()) < 150
    assert torch.equal(after[kept], p[kept])
    assert torch.equal(drop(p[:, :1], 0.99), p[:, :1])  # the only one is never dropped


def test_the_dnn_drops_only_while_it_is_trained() -> None:
    dense = Dense(4, 3, subdomain_dropout=0.5)
    plain = Dense(4, 3)
    p = torch.randn(20, 4, 3).softmax(2)
    before = torch.get_rng_state()
    assert torch.equal(dense.eval()(p), plain.eval()(p))
    assert torch.equal(plain.train()(p), plain.eval()(p))
    assert torch.equal(torch.get_rng_state(), before)  # without dropout nothing is drawn
    first = dense.train()(p)
    torch.set_rng_state(before)
    assert torch.equal(dense(p), first)
    changed = (first != plain(p)).any(1)
    assert 10 < int(changed.sum()) <= 20  # 15 of 16 samples lose a row


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_what_is_no_dropout(probability: float) -> None:
    with pytest.raises(AggregationError, match=f"subdomain_dropout = {probability} should be at least 0 and below 1"):
        Dense(4, 3, subdomain_dropout=probability)

"""Temperatures: against an optimiser of scipy, and by what they may not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from ddcnn.aggregation import Average, Calibrated, Dense, HandedOver, Vote
from ddcnn.aggregation.absent import decide
from ddcnn.aggregation.calibrated import temperatures

pytestmark = pytest.mark.usefixtures("seeded")
M, N, K = 200, 3, 4


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores that are 3, 1 and 0.3 times as large as they should be, and labels drawn from what they should."""
    true = 2 * torch.randn(M, K)
    labels = true.softmax(1).multinomial(1).squeeze(1)
    return torch.stack([true * factor for factor in (3.0, 1.0, 0.3)], 1), labels


def test_temperatures_have_the_least_cross_entropy() -> None:
    scores, labels = problem()
    found = temperatures(scores, labels)
    for n in range(N):
        best = minimize_scalar(
            lambda T, n=n: log_loss(labels, (scores[:, n].double() / T).softmax(1), labels=range(K)),
            bounds=(0.05, 20),
            method="bounded",
            options={"xatol": 1e-8},
        )
        assert float(found[n]) == pytest.approx(best.x, rel=1e-3)
    np.testing.assert_allclose(found / found[1], [3, 1, 0.3], rtol=1e-3)


def test_temperatures_stay_within_bounds() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    right = torch.nn.functional.one_hot(labels, 2).float()
    diverged = torch.full((4, 2), torch.nan)
    found = temperatures(torch.stack([right, 1 - right, diverged], 1), labels)
    torch.testing.assert_close(found, torch.tensor([0.05, 20.0, 1.0]))


@pytest.mark.parametrize("features", ["probability", "logit"])
def test_local_cnns_hand_over_tempered_numbers(features: str) -> None:
    scores, labels = problem()
    handed = HandedOver.of(features, N, K)  # type: ignore[arg-type]
    module = Calibrated(Dense(N, K, features=features), handed)  # type: ignore[arg-type]
    h = scores.softmax(2) if features == "probability" else scores
    torch.testing.assert_close(module(h), module.aggregation(h))  # at the start
    module.fit_local(scores, labels, [])
    expected = scores / temperatures(scores, labels).view(1, N, 1)
    expected = expected.softmax(2) if features == "probability" else expected
    torch.testing.assert_close(module.tempered(h), expected, rtol=1e-4, atol=1e-5)
    module.fit_local(scores, labels, [0, 2])
    assert module.local[[0, 2]].tolist() == [1.0, 1.0]
    assert float(module.local[1]) != 1.0


@pytest.mark.parametrize("missing", [(), (1,)])
@pytest.mark.parametrize("kind", [Average, Vote])
def test_the_decision_stays_and_its_probabilities_get_better(kind: type, missing: tuple[int, ...]) -> None:
    scores, labels = problem()
    p = scores.softmax(2)
    module = Calibrated(kind(), HandedOver.of("probability", N, K))
    before = decide(module, p, missing)
    module.fit_final(p, labels, missing)
    after = decide(module, p, missing)
    assert float(module.final) != 1.0
    assert torch.equal(before.argmax(1), after.argmax(1))
    loss = torch.nn.functional.cross_entropy
    assert loss(after, labels) < loss(before, labels)
    assert set(module.state_dict()) == {"local", "final"}

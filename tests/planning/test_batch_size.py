"""What is left at ``auto`` follows from the images that there are."""

from __future__ import annotations

import math

import pytest

from ddcnn.config import TrainingConfig
from ddcnn.planning import with_batch_size


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", 0.15 * 60 / 128), ("adam", 1e-3 * math.sqrt(60 / 128))])
@pytest.mark.parametrize("batch", [60, 61, 1_000_000_000])
def test_the_rate_is_that_of_a_batch_that_there_can_be(optimizer: str, expected: float, batch: int) -> None:
    asked = TrainingConfig(batch_size=batch, lr="auto", optimizer=optimizer)
    decided = with_batch_size(asked, samples=60, pixels=64)
    assert (decided.batch_size, decided.lr) == (batch, pytest.approx(expected))


def test_what_is_given_stays() -> None:
    given = TrainingConfig(batch_size=7, lr=0.3)
    assert with_batch_size(given, samples=3, pixels=64) == given

"""What the page says of chance, and of the size of the test set."""

from __future__ import annotations

from typing import Any

import pytest

from ddcnn.report.results import Results
from ddcnn.report.uncertainty import at_chance, baseline, difference, doubts


def results_of(
    accuracies: dict[str, float], *, samples: int = 100, counts: list | None = None, **details: Any
) -> Results:
    strategies = [{"name": name, "test_accuracy": a, "validation_accuracy": a} for name, a in accuracies.items()]
    matrix = counts or [[samples // 2, 0], [0, samples // 2]]
    details = {"classes": ["healthy", "ill"], "samples": {"test": samples}, "confusion": {"vote": matrix}} | details
    return Results.parse({"strategies": strategies, "details": details})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[50, 0], [0, 50]], (0.5, "guessing")),
        ([[55, 0], [0, 45]], (0.5, "guessing")),
        ([[10, 10], [60, 20]], (0.8, "always answering ill")),
        ([[0, 0], [0, 0]], (0.5, "guessing")),
    ],
)
def test_what_needs_no_network(counts: list, expected: tuple) -> None:
    assert baseline(results_of({}, counts=counts)) == expected


def test_without_classes_nothing_is_known_of_chance() -> None:
    results = Results.parse(
        {"strategies": [{"name": "vote", "test_accuracy": 0.5}], "details": {"samples": {"test": 9}}}
    )
    assert baseline(results) is None
    assert at_chance(results) == []


@pytest.mark.parametrize(
    ("first", "second", "samples", "expected"),
    [  # Newcombe 1998, table II, method 10: contrasts (a), (b) and (e)
        (56 / 70, 48 / 80, (70, 80), (0.0524, 0.3339)),
        (9 / 10, 3 / 10, (10, 10), (0.1705, 0.8090)),
        (5 / 56, 0 / 29, (56, 29), (-0.0381, 0.1926)),
    ],
)
def test_difference_of_two_shares(first: float, second: float, samples: tuple, expected: tuple) -> None:
    assert tuple(round(bound, 4) for bound in difference(first, second, samples)) == expected


def test_a_small_test_set_shows_nothing() -> None:
    results = results_of({"global": 0.6, "vote": 0.55, "cnn-dnn": 0.65}, samples=20)
    chance, size, lead = doubts(results)
    assert chance == "Nothing here is shown to be better than guessing, which reaches 50.0 %."
    assert size.endswith("points (95 % interval for 20 test images).")
    assert lead.startswith("The difference between CNN-DNN and the global CNN, +5.0 points, may be chance")


def test_a_large_one_does() -> None:
    size, lead = doubts(results_of({"global": 0.9, "vote": 0.6, "cnn-dnn": 0.8}, samples=10_000))
    assert size == "Each accuracy is known to about ± 0.6 to 1.0 points (95 % interval for 10,000 test images)."
    assert lead.startswith("CNN-DNN is worse than the global CNN by 10.0 points (95 % interval -11.")


def test_always_the_frequent_class_is_no_success() -> None:
    results = results_of({"vote": 0.8, "cnn-dnn": 0.95}, samples=400, counts=[[300, 20], [60, 20]])
    assert doubts(results)[0] == "Not shown to be better than always answering healthy, which reaches 80.0 %: vote."


def test_over_folds_their_intervals_count() -> None:
    results = results_of({"global": 0.9, "vote": 0.8}, folds=[5])
    assert doubts(results) == []
    strategies = tuple(s.model_copy(update={"intervals": {"test_accuracy": (0.4, 0.98)}}) for s in results.strategies)
    chance, size = doubts(results.model_copy(update={"strategies": strategies}))
    assert "shown to be better" in chance
    assert size == "Each accuracy is known to about ± 29.0 points (95 % interval over the folds)."

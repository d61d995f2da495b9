"""What a test set of this size can tell: what guessing gives, how sure each figure is, and each difference."""

from __future__ import annotations

import math

from ddcnn.report.labels_and_formats import count, percent, strategy_label, wilson_interval
from ddcnn.report.results import Results, StrategyResults

Interval = tuple[float, float]


def baseline(results: Results) -> tuple[float, str] | None:
    """Return the accuracy that needs no network, and how it is reached; None where the classes are not known.

    >>> baseline(Results.parse({"details": {"confusion": {"vote": [[60, 20], [10, 10]]}}}))
    (0.8, 'always answering 0')
    """
    counts = class_counts(results)
    K = len(results.details.classes) or len(counts)
    if not K:
        return None
    most = max(range(len(counts)), key=lambda k: counts[k], default=0)
    frequent = counts[most] / sum(counts) if sum(counts) else 0.0
    if frequent > 1.2 / K:
        classes = results.details.classes
        return frequent, f"always answering {classes[most] if len(classes) == K else most}"
    return 1 / K, "guessing"


def class_counts(results: Results) -> list[int]:
    """Return the numbers of test images of each class; empty where they are not known."""
    matrix = next((m for m in results.details.confusion.values() if m), ())
    return [sum(row) for row in matrix]


def interval(results: Results, strategy: StrategyResults) -> Interval | None:
    """Return the 95 % interval of a test accuracy: over folds as the run has it, else by the size of the test set."""
    value, samples = strategy.test_accuracy, results.details.samples.get("test")
    bounds = strategy.intervals.get("test_accuracy")
    if value is None:
        return None
    if bounds is not None and bounds[0] is not None and bounds[1] is not None:
        return bounds[0], bounds[1]
    return wilson_interval(value, samples) if samples and not results.details.folds else None


def difference(first: float, second: float, samples: tuple[int, int]) -> Interval:
    """Return the 95 % interval of the difference of two shares, counted on so many samples each.

    The samples are taken for independent ones. Where both were counted on the same samples, it is too wide rather than
    too narrow. Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10 and table II (a).

    >>> low, high = difference(56 / 70, 48 / 80, (70, 80))
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    (low_1, high_1), (low_2, high_2) = map(wilson_interval, (first, second), samples)
    gap = first - second
    return gap - math.hypot(first - low_1, high_2 - second), gap + math.hypot(high_1 - first, second - low_2)


def chosen(results: Results) -> StrategyResults | None:
    """Return the decomposed strategy that is the best on the validation images, if the test measured it."""
    measured = [s for s in results.strategies if s.name != "global" and s.test_accuracy is not None]
    return max(measured, key=lambda s: s.validation_accuracy or 0.0, default=None)


def against_global(results: Results) -> tuple[StrategyResults, Interval] | None:
    """Return the chosen decomposed strategy, and the 95 % interval of its lead over the global CNN."""
    ours, whole, samples = chosen(results), results.strategy("global"), results.details.samples.get("test")
    if ours is None or whole is None or whole.test_accuracy is None or not samples or results.details.folds:
        return None
    return ours, difference(ours.test_accuracy or 0.0, whole.test_accuracy, (samples, samples))


def doubts(results: Results) -> list[str]:
    """Return sentences on how far the accuracies can be trusted."""
    return [sentence for sentence in (_chance(results), _size(results), _lead(results)) if sentence]


def at_chance(results: Results) -> list[StrategyResults]:
    """Return the strategies that are not shown to be better than what needs no network."""
    floor = baseline(results)
    if floor is None:
        return []
    found = [(s, interval(results, s)) for s in results.strategies]
    return [s for s, bounds in found if bounds is not None and bounds[0] <= floor[0]]


def _chance(results: Results) -> str:
    floor, failed = baseline(results), at_chance(results)
    if floor is None or not failed:
        return ""
    if all(s in failed for s in results.strategies if s.test_accuracy is not None):
        return f"Nothing here is shown to be better than {floor[1]}, which reaches {percent(floor[0], ' %')}."
    names = ", ".join(strategy_label(s.name) for s in failed)
    return f"Not shown to be better than {floor[1]}, which reaches {percent(floor[0], ' %')}: {names}."


def _size(results: Results) -> str:
    samples = results.details.samples.get("test")
    widths = [
        (high - low) / 2 for s in results.strategies if (bounds := interval(results, s)) for low, high in [bounds]
    ]
    if not widths:
        return ""
    source = "over the folds" if results.details.folds else f"for {count(samples)} test images"
    least, most = percent(min(widths)), percent(max(widths))
    width = most if least == most else f"{least} to {most}"
    return f"Each accuracy is known to about ± {width} points (95 % interval {source})."


def _lead(results: Results) -> str:
    found = against_global(results)
    if found is None:
        return ""
    ours, (low, high) = found
    whole = results.strategy("global")
    gap = (ours.test_accuracy or 0.0) - ((whole.test_accuracy if whole else None) or 0.0)
    span = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    name = strategy_label(ours.name)
    if low <= 0 <= high:
        return f"The difference between {name} and the global CNN, {100 * gap:+.1f} points, may be chance ({span})."
    return f"{name} is {'better' if gap > 0 else 'worse'} than the global CNN by {abs(100 * gap):.1f} points ({span})."

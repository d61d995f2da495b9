"""Decision thresholds of trained networks, chosen on the validation images, if the configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddcnn.strategies.strategy import StrategyContext, StrategyResult
from ddcnn.training.thresholds import choose, cost_matrix

_MOST_NAMED = 4


def set_thresholds(context: StrategyContext, results: Mapping[str, StrategyResult]) -> None:
    """Set the thresholds of each network, and say them in one line; test images play no part."""
    config, data = context.setup.config.aggregation, context.setup.data
    if config.threshold is None:
        return
    classes, labels = data.dataset.classes, data.dataset.labels[data.split.validation]
    costs = None if config.costs is None else cost_matrix(config.costs, classes)
    for name, result in results.items():
        if isinstance(config.threshold, float):
            result.network.thresholds = (1 - config.threshold, config.threshold)
            why = "as asked for"
        else:
            result.network.thresholds = choose(result.scores("validation"), labels, config.threshold, costs)
            why = f"{config.threshold} on {len(labels):,} validation images"
        context.progress.note(f"thresholds of {name}: {_said(classes, result.network.thresholds)} ({why})")


def _said(classes: Sequence[str], thresholds: Sequence[float]) -> str:
    """Name the thresholds of the first classes.

    >>> _said(["healthy", "ill"], [0.8, 0.2])
    'healthy 0.800, ill 0.200'
    """
    named = [f"{name} {t:.3f}" for name, t in zip(classes, thresholds, strict=True)]
    return ", ".join([*named[:_MOST_NAMED], *(["..."] if len(named) > _MOST_NAMED else [])])

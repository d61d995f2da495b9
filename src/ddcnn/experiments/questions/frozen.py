"""Several aggregations on the same trained local CNNs: so that nothing else differs between them."""

from __future__ import annotations

from dataclasses import replace

from ddcnn.strategies import STRATEGIES, Results, Strategy, StrategyContext, StrategyResult


def frozen(*aggregations: str) -> Strategy:
    """Return a strategy that trains local CNNs once, and puts each of these aggregations on them."""
    local = STRATEGIES["local"]

    def train(context: StrategyContext, earlier: Results) -> dict[str, StrategyResult]:
        return local.run(replace(context, aggregations=aggregations), earlier)

    return replace(local, run=train, compared=False)

"""Aggregations by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ddcnn.aggregation.aggregations import Average, Vote
from ddcnn.aggregation.dense import Dense
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError, nearest

Builder = Callable[[int, int, AggregationConfig], nn.Module]  # (N, K, configuration) -> (B, N, K) -> (B, K)

AGGREGATIONS: dict[str, Builder] = {
    "average": lambda _n, _k, _config: Average(),
    "vote": lambda _n, _k, _config: Vote(),
    "dense": lambda n, k, config: Dense(
        n,
        k,
        hidden=config.hidden,
        features=config.features,
        shortcut=config.shortcut,
        subdomain_dropout=config.subdomain_dropout,
    ),
}


def build_aggregation(
    name: str, subdomains: int, classes: int, config: AggregationConfig, *, seed: int = 0
) -> nn.Module:
    """Build an aggregation, (B, N, K) -> (B, K), with parameters that depend on ``seed`` alone.

    Raises
    ------
    AggregationError
        Unknown name.
    """
    if name not in AGGREGATIONS:
        raise AggregationError(f"aggregation {name!r} is unknown: {nearest(name, AGGREGATIONS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AGGREGATIONS[name](subdomains, classes, config)

"""Local probabilities (B, N, K) -> global decision (B, K): average, vote, dense."""

from ddcnn.aggregation.average import Average
from ddcnn.aggregation.dense import Dense
from ddcnn.aggregation.registry import AGGREGATIONS, Aggregation, build_aggregation
from ddcnn.aggregation.vote import Vote

__all__ = ["AGGREGATIONS", "Aggregation", "Average", "Dense", "Vote", "build_aggregation"]

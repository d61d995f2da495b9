"""Local probabilities (B, N, K) -> global decision (B, K): average, vote, dense."""

from ddcnn.aggregation.aggregations import Average, Vote
from ddcnn.aggregation.dense import Dense
from ddcnn.aggregation.missing import decide
from ddcnn.aggregation.registry import AGGREGATIONS, build_aggregation

__all__ = ["AGGREGATIONS", "Average", "Dense", "Vote", "build_aggregation", "decide"]

"""What local CNNs hand over (B, N, F) -> global decision (B, K): average, vote, weighted, dense, attention, gated."""

from ddcnn.aggregation.attention import Attention
from ddcnn.aggregation.average import Average
from ddcnn.aggregation.calibrated import Calibrated
from ddcnn.aggregation.dense import Dense
from ddcnn.aggregation.gated import Gated
from ddcnn.aggregation.handed import HandedOver, LocalOutputs
from ddcnn.aggregation.registry import AGGREGATIONS, Aggregation, build_aggregation, check_aggregation, check_scores_of
from ddcnn.aggregation.vote import Vote
from ddcnn.aggregation.weighted import WeightedAverage

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "Attention",
    "Average",
    "Calibrated",
    "Dense",
    "Gated",
    "HandedOver",
    "LocalOutputs",
    "Vote",
    "WeightedAverage",
    "build_aggregation",
    "check_aggregation",
    "check_scores_of",
]

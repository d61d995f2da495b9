"""What is trained in which order: global, local (then an aggregation), coherent, transfer."""

from ddcnn.strategies.local_probabilities import LocalProbabilities
from ddcnn.strategies.registry import STRATEGIES, needed_for, run_strategies, works_of
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult

__all__ = [
    "STRATEGIES",
    "LocalProbabilities",
    "Results",
    "Strategy",
    "StrategyContext",
    "StrategyResult",
    "needed_for",
    "run_strategies",
    "works_of",
]

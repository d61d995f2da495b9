"""Setups and single steps of strategies, as tests need them."""

from __future__ import annotations

from typing import Any

from ddcnn.config import Config
from ddcnn.engines import ALONE, Engine, InProcess, Ranks
from ddcnn.planning import Setup, decide, prepare
from ddcnn.strategies import StrategyContext, StrategyResult
from ddcnn.strategies import coherent as coherent_strategy
from ddcnn.strategies import local as local_strategy
from ddcnn.strategies import transfer as transfer_strategy
from ddcnn.strategies.local import LocalResult
from ddcnn.training import Progress, Workspace


def decided(values: dict[str, Any], ranks: Ranks = ALONE) -> Setup:
    """Return a setup with nothing left at ``auto``."""
    return decide(prepare(Config.parse(values), ranks=ranks), ())[0]


def context(
    setup: Setup, engine: Engine | None = None, progress: Progress | None = None, workspace: Workspace | None = None
) -> StrategyContext:
    """Return what a strategy is given."""
    return StrategyContext(setup, engine or InProcess(), progress or Progress(), workspace)


def train_local(
    setup: Setup, engine: Engine | None = None, progress: Progress | None = None, workspace: Workspace | None = None
) -> LocalResult:
    """Train all local CNNs."""
    return local_strategy.train_local_cnns(context(setup, engine, progress, workspace))


def aggregate(setup: Setup, local: LocalResult, name: str = "dense") -> StrategyResult:
    """Put an aggregation on local CNNs."""
    return local_strategy.aggregate(context(setup), local, name)


def train_coherent(setup: Setup) -> StrategyResult:
    """Train the coherent model."""
    return coherent_strategy.train_coherent(context(setup), {})["coherent"]


def transfer(setup: Setup, start: StrategyResult) -> StrategyResult:
    """Train the coherent model on from a CNN-DNN."""
    return transfer_strategy.train_transfer(context(setup), {"cnn-dnn": start})["transfer"]

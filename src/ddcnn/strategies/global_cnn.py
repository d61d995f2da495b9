"""Strategy "global": one CNN on the whole image, the baseline."""

from __future__ import annotations

from ddcnn.aggregation import Average
from ddcnn.network import CNNDNN
from ddcnn.strategies.problem import Problem
from ddcnn.strategies.result import StrategyResult
from ddcnn.training import Progress, StageTimer, Workspace, fit


def train_global(problem: Problem, progress: Progress, workspace: Workspace | None = None) -> StrategyResult:
    """Train the global CNN; as a `CNNDNN` with one subdomain, whose average is its own probability."""
    network = problem.global_cnn()
    with StageTimer("global", problem.device) as stage:
        history = fit(
            network,
            problem.batches(problem.split.train, "order", network.subdomains, augment=True),
            problem.batches(problem.split.validation, "order", network.subdomains),
            problem.config.training,
            classes=problem.classes,
            stage="global",
            precision=problem.precision,
            progress=progress,
            checkpoints=None if workspace is None else workspace.of("global"),
        )
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    model = CNNDNN(problem.global_decomposition, network, Average(), normalization=problem.normalization)
    return StrategyResult(model, [stage], {"global": history})

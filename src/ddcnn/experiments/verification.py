"""`verify`: a plan against what one epoch of each stage takes here."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ddcnn.config import Config
from ddcnn.engines import build_engine, refuse_ranks
from ddcnn.errors import ConfigError
from ddcnn.experiments.given_images import Given, taken
from ddcnn.experiments.job import Job
from ddcnn.experiments.plan import Cost, Plan, costs_of, plan_of, ready
from ddcnn.experiments.results import comparison_of
from ddcnn.experiments.trials import Trials
from ddcnn.planning import Setup, prepare
from ddcnn.strategies import StrategyContext, run_strategies
from ddcnn.training import Progress, StageTimer, Workspace


@dataclass(frozen=True)
class Verified:
    """What was predicted of one epoch of a stage, and what was measured.

    Attributes
    ----------
    name
        Of the stage.
    predicted, measured
        Label, seconds, largest memory in bytes.
    """

    name: str
    predicted: Cost
    measured: Cost


def verify(
    config: Config, data: Given = None, *, job: str = "compare", progress: Progress | None = None
) -> tuple[Plan, list[Verified]]:
    """Return the plan of a run; and, stage by stage, what it says of one epoch against one that is trained.

    Nothing is left on disk. Parameters and errors are those of `ddcnn.plan`.
    """
    refuse_ranks("plan --verify")
    asked, progress = Job.of(job, config), progress or Progress()
    asked.check(config)
    if config.data.folds is not None and config.data.fold is None:
        raise ConfigError("one run is verified: give data.fold, or leave data.folds out")
    config, dataset = taken(config, data)
    with ExitStack() as contexts:
        setup, choices, hands = ready(prepare(config, dataset), asked, contexts)
        trials, short = Trials(), _one_epoch(setup)
        plan = replace(plan_of(setup, asked, hands, trials), choices=choices)
        predicted = costs_of(short, asked, hands, trials)
        measured = _measured(short, asked, progress, contexts)
    return plan, [Verified(name, cost, measured[name]) for name, cost in predicted.items() if name in measured]


def _one_epoch(setup: Setup) -> Setup:
    """Return the same setup with one epoch of each stage."""
    config = setup.config
    own = {name: getattr(config, name).model_copy(update={"epochs": None}) for name in ("transfer", "compose", "init")}
    dnn = config.aggregation.model_copy(update={"epochs": 1})
    return replace(setup, config=config.model_copy(update={**own, "aggregation": dnn})).with_epochs(1)


def _measured(setup: Setup, job: Job, progress: Progress, contexts: ExitStack) -> dict[str, Cost]:
    engine, workspace = build_engine(setup.config.compute, setup.compute.device.type), None
    if not engine.serial:
        folder = Path(contexts.enter_context(TemporaryDirectory(prefix="ddcnn-")))
        workspace = Workspace(folder, setup.fingerprint, progress.note)
    contexts.enter_context(engine)
    context = StrategyContext(setup, engine, progress, workspace, job.aggregations)
    results = run_strategies(list(job.strategies), context)
    with StageTimer("evaluation", setup.compute.device) as evaluation:
        comparison_of(setup, results)
    stages = [*(stage for result in results.values() for stage in result.stages), evaluation]
    return {stage.name: Cost(stage.name, stage.seconds, stage.peak_memory_bytes) for stage in stages}

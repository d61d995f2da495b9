"""The main job: every strategy on the same data, side by side; or one strategy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.store import Stored, reading
from ddcnn.engines import ALONE, Engine, InProcess, Ranks, check_alone, joined, refuse_ranks
from ddcnn.errors import ConfigError
from ddcnn.experiments.folds import over_folds
from ddcnn.experiments.record import Comparison, Recorder, finish_run, open_run
from ddcnn.run import RunFolder
from ddcnn.strategies import (
    Local,
    Plan,
    Problem,
    Trained,
    aggregate,
    plan_memory,
    prepare,
    resolve,
    train_coherent,
    train_global,
    train_local,
    transfer,
)
from ddcnn.training import Progress, Stage

_MOST_NAMED = 20
_NAMES = {"average": "average", "vote": "vote", "dense": "cnn-dnn"}


def compare(
    config: Config, *, progress: Progress | None = None, command: str = "", engine: Engine | None = None
) -> Comparison:
    """Train and compare the global CNN, the local CNNs under three aggregations, coherent and transfer.

    Parameters
    ----------
    config
        What to do; ``config.strategy`` plays no part, and the dense aggregation is used where one is trained. With
        ``data.folds`` it is done once per fold, and the result is the mean with its confidence interval.
    progress
        Who is told how it goes; None: nobody.
    command
        How the run was started, recorded in it.
    engine
        Where local CNNs are trained; None: in this process.

    Raises
    ------
    DdcnnError
        Anything that cannot be used; found before the run's folder is made.
    """
    refuse_ranks("compare")
    aggregation = config.aggregation.model_copy(update={"name": "dense"})
    config = config.model_copy(update={"aggregation": aggregation})
    progress = progress or Progress()
    if config.data.folds is not None and config.data.fold is None:
        config = _with_out(config)
        return over_folds(config, lambda one, data: _compare(one, data, progress, command, engine), progress)
    return _compare(config, None, progress, command, engine)


def _compare(
    config: Config, dataset: Dataset | None, progress: Progress, command: str, engine: Engine | None
) -> Comparison:
    problem, choices, plan = _begin(config, ("global", "coherent"), progress, dataset)
    folder = open_run(problem, command=command)
    recorder = Recorder(folder, progress)
    trained = {"global": train_global(problem, recorder)}
    local = train_local(problem, engine or InProcess(), recorder)
    for name, label in _NAMES.items():
        trained[label] = aggregate(problem, local, name, recorder)
    trained["coherent"] = train_coherent(problem, recorder)
    trained["transfer"] = transfer(problem, trained["cnn-dnn"], recorder)
    return _finish(folder, problem, trained, local, choices, plan, command)


def train(
    config: Config, *, progress: Progress | None = None, command: str = "", engine: Engine | None = None
) -> Comparison:
    """Train one strategy, ``config.strategy``, with the aggregation that the configuration names.

    Parameters and errors are those of `compare`. In processes that ``torchrun`` has started, a coherent model is spread
    over them: `ddcnn.engines.joined`. Each returns the whole network; one of them shows progress and writes the run.
    """
    with joined(config.compute.device) as ranks:
        return _train(config, progress if ranks.first else None, command, engine, ranks)


def _train(config: Config, progress: Progress | None, command: str, engine: Engine | None, ranks: Ranks) -> Comparison:
    if config.strategy != "coherent":
        check_alone(ranks, f"strategy {config.strategy}")
    if config.compute.memory is not None:
        check_alone(ranks, "compute.memory")
    if config.strategy in ("coherent", "transfer") and config.aggregation.name == "vote":
        raise ConfigError(
            f"a {config.strategy} model cannot be trained through votes: no gradient; use dense or average"
        )
    if config.strategy in ("global", "coherent") and config.training.subdomains:
        raise ConfigError(
            f"training.subdomains is for local CNNs, but strategy {config.strategy} trains one model; leave it out, or "
            f"use local or transfer"
        )
    if config.data.folds is not None and config.data.fold is None:
        raise ConfigError("train trains one fold: give data.fold, or leave data.folds out; compare trains them all")
    whole = {"global": ("global",), "local": ()}.get(config.strategy, ("coherent",))
    problem, choices, plan = _begin(config, whole, progress or Progress(), ranks=ranks)
    folder = open_run(problem, command=command) if ranks.first else None
    recorder = (progress or Progress()) if folder is None else Recorder(folder, progress or Progress())
    local = None
    if config.strategy == "global":
        trained = {"global": train_global(problem, recorder)}
    elif config.strategy == "coherent":
        trained = {"coherent": train_coherent(problem, recorder)}
    else:
        local = train_local(problem, engine or InProcess(), recorder)
        name = config.aggregation.name
        trained = {_NAMES[name]: aggregate(problem, local, name, recorder)}
        if config.strategy == "transfer":
            trained["transfer"] = transfer(problem, trained[_NAMES[name]], recorder)
    return _finish(folder, problem, trained, local, choices, plan, command)


def _with_out(config: Config) -> Config:
    out = config.out or Path("runs") / f"{config.data.source.replace('/', '_')}-{config.model.name}-s{config.seed}"
    return config.model_copy(update={"out": out})


def _begin(
    config: Config, whole: Sequence[str], progress: Progress, dataset: Dataset | None = None, ranks: Ranks = ALONE
) -> tuple[Problem, dict[str, str], Plan | None]:
    config = _with_out(config)
    assert config.out is not None
    if ranks.first:
        RunFolder(config.out).check_free(force=config.force)
    problem, plan = plan_memory(prepare(config, dataset, ranks), whole)
    _tell_bad_files(problem, progress)
    problem, choices = resolve(problem)
    if plan is not None:
        choices["memory"] = plan.line(math.prod(config.decomposition.grid))
    if not ranks.alone:
        choices["ranks"] = ranks.line(math.prod(config.decomposition.grid))
    if isinstance(problem.images, Stored):
        choices["store"] = reading(problem.images.store, problem.decomposition)
    for what, text in choices.items():
        progress.note(f"{what} {text}")
    return problem, choices, plan


def _tell_bad_files(problem: Problem, progress: Progress) -> None:
    bad = problem.dataset.bad_files
    if problem.config.data.on_bad_file == "warn":
        for one in bad[:_MOST_NAMED]:
            progress.note(f"left out: {one.reason}")
    if bad:
        progress.note(f"{len(bad)} file{'s are' if len(bad) > 1 else ' is'} left out, named in bad_files.json")


def _finish(
    folder: RunFolder | None,
    problem: Problem,
    trained: dict[str, Trained],
    local: Local | None,
    choices: dict[str, str],
    plan: Plan | None,
    command: str,
) -> Comparison:
    stages: dict[str, Stage] = {stage.name: stage for t in trained.values() for stage in t.stages}
    peaks = [stage.peak_memory_bytes or 0 for stage in stages.values()]
    if plan is not None:
        choices = choices | {"memory": f"{choices['memory']}, measured peak {max(peaks) / 1e9:.2f} GB"}
    return finish_run(
        folder,
        problem,
        trained,
        local=local,
        stages=list(stages.values()),
        choices=choices,
        command=command,
    )

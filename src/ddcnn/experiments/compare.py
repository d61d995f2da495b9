"""The main job: every strategy on the same data, side by side; or one strategy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.sources import is_foreign
from ddcnn.engines import ENGINES, Engine, Ranks, RankStarter, build_engine, check_alone, joined, launched, refuse_ranks
from ddcnn.errors import ConfigError, RunError
from ddcnn.experiments.folds import over_folds
from ddcnn.experiments.given_images import Given, as_config, described, taken
from ddcnn.experiments.job import Job
from ddcnn.experiments.over_ranks import train_over_ranks
from ddcnn.experiments.record import Comparison, job_of, read_results, reopened
from ddcnn.experiments.session import RunOptions, Session, as_rank
from ddcnn.planning import find_device
from ddcnn.runs.folder import BEGUN, RunFolder, default_folder
from ddcnn.runs.run_validation import foreign_code, untrusted
from ddcnn.strategies import STRATEGIES, run_strategies
from ddcnn.strategies.initialization import INITIALIZATIONS
from ddcnn.training import Progress
from ddcnn.training.local_objectives import LOCAL_OBJECTIVES


def compare(
    config: Config | Mapping[str, Any],
    data: Given = None,
    *,
    progress: Progress | None = None,
    command: str = "",
    engine: Engine | None = None,
    time_limit: float | None = None,
) -> Comparison:
    """Train and compare the global CNN, the local CNNs under each aggregation, coherent and transfer.

    Parameters
    ----------
    config
        What to do, a `ddcnn.Config` or nested sections; ``config.strategy`` plays no part. Average, vote and the dense
        network are compared, and ``config.aggregation`` if it is another one; coherent and transfer use
        ``config.aggregation``. With ``data.folds`` it is done once per fold, and the result is the mean with its
        confidence interval.
    data
        A `ddcnn.Dataset`, a pair (X, y) or a table, as `ddcnn.as_dataset` has them; None reads ``config.data.source``.
        How they are split is for ``config.data``; ``source`` becomes ``"arrays"``, unless the data set says that it was
        read from there.
    progress
        Who is told how it goes; None: nobody.
    command
        How the run was started, recorded in it.
    engine
        Where local CNNs are trained; None: as ``config.compute`` says.
    time_limit
        Seconds that it may take: ``training.epochs`` becomes the largest number that fits, as `ddcnn.plan` predicts it
        here, and the schedule is that of so many epochs. None: the epochs are what they are.

    Raises
    ------
    DdcnnError
        Anything that cannot be used; found before the run's folder is made.
    """
    refuse_ranks("compare")
    config = as_config(config)
    Job.of("compare", config).check(config)
    config, dataset = taken(config, data)
    options = RunOptions(progress or Progress(), command, engine, time_limit=time_limit)
    return _compare(with_out(config, "compare"), options, dataset)


def train(
    config: Config | Mapping[str, Any],
    data: Given = None,
    *,
    progress: Progress | None = None,
    command: str = "",
    engine: Engine | None = None,
    time_limit: float | None = None,
) -> Comparison:
    """Train one strategy, ``config.strategy``, with the aggregation that the configuration names.

    Parameters and errors are those of `compare`. In processes that ``torchrun`` has started, a coherent model is spread
    over them: `ddcnn.engines.joined`. Each returns the whole network; one of them shows progress and writes the run.
    An engine that starts ranks of its own, such as Ray, trains a coherent model over these.
    """
    config, dataset = taken(as_config(config), data)
    options = RunOptions(progress or Progress(), command, engine, time_limit=time_limit)
    return _train(with_out(config, "train"), options, dataset)


def resume(
    run: Path | str,
    data: Given = None,
    *,
    progress: Progress | None = None,
    command: str = "",
    engine: Engine | None = None,
    compute: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    trust: bool = False,
) -> Comparison:
    """Go on with a run that was interrupted or killed; one that is complete is only read.

    On a CPU, with as many threads, it ends bit-equal to a run that was never interrupted. A coherent model can go on
    over another number of ranks, within rounding; all of them must be able to read the folder.

    Parameters
    ----------
    run
        Its folder.
    data
        The images, if they were given in memory when the run was begun. Their content must be the same.
    progress, command, engine
        As in `compare`.
    compute
        Fields of ``config.compute`` that change nothing in the result: engine, workers, ray_address, retries; and
        threads, within rounding.
    directory
        Where the data are now, if they have been moved: as ``config.data.directory``. Their content must be the same.
    trust
        Whether code that the run's configuration names (``module:function``) may be imported.

    Raises
    ------
    RunError
        The folder is no run, or was begun with other data.
    """
    folder = RunFolder(run)
    if folder.is_complete():
        folder.check()
        return read_results(folder)
    config = reopened(folder, compute or {}, directory)
    foreign = [*foreign_code(config), *_foreign_in_training(config)]
    if foreign and not trust:
        raise RunError(untrusted(folder, foreign[0]))
    config, dataset = taken(config, data, None if data is None else described(folder))
    options = RunOptions(progress or Progress(), command, engine, resuming=True)
    if job_of(folder) == "train":
        return _train(config, options, dataset)
    refuse_ranks("compare")
    return _compare(config, options, dataset)


def with_out(config: Config, job: str) -> Config:
    """Return the configuration with a folder for the run, if it has none: ``runs/JOB-DATA-MODEL-GRID-sSEED``."""
    return config if config.out is not None else config.model_copy(update={"out": default_folder(config, job)})


def train_here(config: Config, options: RunOptions, dataset: Dataset | None = None) -> Comparison:
    """Train one strategy in this process, or as one of several ranks."""
    with Session.of(config, "train", options, dataset) as session:
        results = run_strategies([config.strategy], session.context())
        return session.finish(results, list(results)[-1])


def _train(config: Config, options: RunOptions, dataset: Dataset | None) -> Comparison:
    strategy = STRATEGIES.find(config.strategy)
    Job.of("train", config).check(config)
    if config.data.folds is not None and config.data.fold is None:
        raise ConfigError("train trains one fold: give data.fold, or leave data.folds out; compare trains them all")
    if not launched() and strategy.over_ranks:
        with ExitStack() as contexts:
            engine = options.engine or build_engine(config.compute, find_device(config.compute.device).type)
            if engine.starts_ranks:
                if dataset is not None:
                    raise ConfigError(
                        f"the ranks of engine {config.compute.engine} read the images themselves; give data.source "
                        "instead of images in memory, or use engine in_process"
                    )
                _check_unlimited(options)
                contexts.enter_context(engine)
                return train_over_ranks(config, options, cast(RankStarter, engine))
    with joined(config.compute.device, config.compute.replicas) as ranks:
        if not ranks.alone:
            _check_unlimited(options)
            _check_spreadable(config, options, ranks)
        return train_here(config, as_rank(options, ranks), dataset)


def _compare(config: Config, options: RunOptions, dataset: Dataset | None) -> Comparison:
    if config.data.folds is None or config.data.fold is not None:
        return _compare_one(config, dataset, options)

    def one(config: Config, dataset: Dataset) -> Comparison:
        assert config.out is not None
        begun = options.resuming and RunFolder(config.out)
        if begun and begun.is_complete():
            return read_results(begun)
        resuming = bool(begun and (begun.path / BEGUN).is_file())
        limit = options.time_limit if config.data.fold == 0 else None  # its epochs are those of all folds
        limit = None if limit is None else limit / math.prod(config.data.folds or (1,))
        return _compare_one(config, dataset, replace(options, resuming=resuming, time_limit=limit))

    return over_folds(config, one, options.progress, dataset, resuming=options.resuming)


def _compare_one(config: Config, dataset: Dataset | None, options: RunOptions) -> Comparison:
    with Session.of(config, "compare", options, dataset) as session:
        return session.finish(run_strategies(list(session.job.strategies), session.context()), None)


def _foreign_in_training(config: Config) -> list[str]:
    """Return the names ``module:function`` that only a training imports."""
    names = [
        (config.strategy, STRATEGIES.is_foreign),
        (config.compute.engine, ENGINES.is_foreign),
        (config.init.name, INITIALIZATIONS.is_foreign),
        (config.training.local_objective, LOCAL_OBJECTIVES.is_foreign),
    ]
    return [name for name, foreign in [*names, (config.data.source, is_foreign)] if foreign(name)]


def _check_unlimited(options: RunOptions) -> None:
    if options.time_limit is not None:
        raise ConfigError("a time limit is for one process: nobody has measured here what ranks take; give --epochs")


def _check_spreadable(config: Config, options: RunOptions, ranks: Ranks) -> None:
    if not STRATEGIES.find(config.strategy).over_ranks:
        check_alone(ranks, f"strategy {config.strategy}")
    if config.compute.memory is not None:
        check_alone(ranks, "a run with compute.memory")
    engine = options.engine or build_engine(config.compute, "cpu")
    if not engine.serial:
        check_alone(ranks, "an engine")

"""The main job: every strategy on the same data, side by side; or one strategy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.engines import Engine, check_alone, joined, refuse_ranks
from ddcnn.errors import RunError
from ddcnn.experiments.folds import over_folds
from ddcnn.experiments.on_ray import is_for_ray, train_on_ray
from ddcnn.experiments.record import BEGUN, Comparison, read_results, reopened
from ddcnn.experiments.session import RunOptions, Session
from ddcnn.experiments.single import NAMES, check_trainable, train_single, with_out
from ddcnn.runs.folder import RunFolder
from ddcnn.strategies import aggregate, train_coherent, train_global, train_local, transfer
from ddcnn.training import Progress


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
        Where local CNNs are trained; None: as ``config.compute`` says.

    Raises
    ------
    DdcnnError
        Anything that cannot be used; found before the run's folder is made.
    """
    refuse_ranks("compare")
    aggregation = config.aggregation.model_copy(update={"name": "dense"})
    config = with_out(config.model_copy(update={"aggregation": aggregation}))
    return _compare(config, RunOptions(progress or Progress(), command, engine))


def train(
    config: Config, *, progress: Progress | None = None, command: str = "", engine: Engine | None = None
) -> Comparison:
    """Train one strategy, ``config.strategy``, with the aggregation that the configuration names.

    Parameters and errors are those of `compare`. In processes that ``torchrun`` has started, a coherent model is spread
    over them: `ddcnn.engines.joined`. Each returns the whole network; one of them shows progress and writes the run.
    With ``config.compute.engine`` at ``ray``, Ray Train starts such processes on its cluster.
    """
    if is_for_ray(config, engine):
        check_trainable(config)
        return train_on_ray(with_out(config), RunOptions(progress or Progress(), command, engine))
    with joined(config.compute.device, config.compute.replicas) as ranks:
        check_trainable(config)
        options = RunOptions(progress or Progress(), command, engine, ranks=ranks)
        return train_single(with_out(config), options)


def resume(
    run: Path | str,
    *,
    progress: Progress | None = None,
    command: str = "",
    engine: Engine | None = None,
    compute: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Comparison:
    """Go on with a run that was interrupted or killed; one that is complete is only read.

    On a CPU, with as many threads, it ends bit-equal to a run that was never interrupted. A coherent model can go on
    over another number of ranks, within rounding; all of them must be able to read the folder.

    Parameters
    ----------
    run
        Its folder.
    progress, command, engine
        As in `compare`.
    compute
        Fields of ``config.compute`` that change nothing in the result: engine, workers, ray_address, retries.
    trust
        Whether code that the run's configuration names (``model: module:function``) may be imported.

    Raises
    ------
    RunError
        The folder is no run, or was begun with other data.
    """
    folder = RunFolder(run)
    if folder.is_complete():
        folder.check()
        return read_results(folder)
    config = reopened(folder, compute or {})
    if ":" in config.model.name and not trust:
        raise RunError(
            f"{folder.path} names code of its own, {config.model.name}, which would be imported; if you know where "
            "the run is from, allow it with trust=True (--trust)"
        )
    options = RunOptions(progress or Progress(), command, engine, resuming=True)
    if folder.read_json(BEGUN).get("job") != "train":
        refuse_ranks("compare")
        return _compare(config, options)
    if is_for_ray(config, engine):
        return train_on_ray(config, options)
    with joined(config.compute.device, config.compute.replicas) as ranks:
        return train_single(config, replace(options, ranks=ranks))


def _compare(config: Config, options: RunOptions) -> Comparison:
    check_alone(options.ranks, "compare")
    if config.data.folds is None or config.data.fold is not None:
        return _compare_one(config, None, options)

    def one(config: Config, dataset: Dataset) -> Comparison:
        assert config.out is not None
        begun = options.resuming and RunFolder(config.out)
        if begun and begun.is_complete():
            return read_results(begun)
        resuming = bool(begun and (begun.path / BEGUN).is_file())
        return _compare_one(config, dataset, replace(options, resuming=resuming))

    return over_folds(config, one, options.progress, resuming=options.resuming)


def _compare_one(config: Config, dataset: Dataset | None, options: RunOptions) -> Comparison:
    with Session.of(config, "compare", ("global", "coherent"), options, dataset) as session:
        problem, recorder, workspace = session.problem, session.recorder, session.workspace
        trained = {"global": train_global(problem, recorder, workspace)}
        local = train_local(problem, session.engine, recorder, workspace)
        for name, label in NAMES.items():
            trained[label] = aggregate(problem, local, name, recorder, workspace)
        trained["coherent"] = train_coherent(problem, recorder, workspace)
        trained["transfer"] = transfer(problem, trained["cnn-dnn"], recorder, workspace)
        return session.finish(trained, local)

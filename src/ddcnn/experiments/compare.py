"""The main job: every strategy on the same data, side by side; or one strategy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.engines import Engine, check_alone, joined, refuse_ranks
from ddcnn.errors import ConfigError, RunError
from ddcnn.experiments.folds import over_folds
from ddcnn.experiments.record import BEGUN, Comparison
from ddcnn.experiments.session import Circumstances, Session
from ddcnn.run import RunFolder
from ddcnn.strategies import aggregate, train_coherent, train_global, train_local, transfer
from ddcnn.training import Progress

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
        Where local CNNs are trained; None: as ``config.compute`` says.

    Raises
    ------
    DdcnnError
        Anything that cannot be used; found before the run's folder is made.
    """
    refuse_ranks("compare")
    aggregation = config.aggregation.model_copy(update={"name": "dense"})
    config = _with_out(config.model_copy(update={"aggregation": aggregation}))
    return _compare(config, Circumstances(progress or Progress(), command, engine))


def train(
    config: Config, *, progress: Progress | None = None, command: str = "", engine: Engine | None = None
) -> Comparison:
    """Train one strategy, ``config.strategy``, with the aggregation that the configuration names.

    Parameters and errors are those of `compare`. In processes that ``torchrun`` has started, a coherent model is spread
    over them: `ddcnn.engines.joined`. Each returns the whole network; one of them shows progress and writes the run.
    """
    with joined(config.compute.device) as ranks:
        _check_trainable(config)
        circumstances = Circumstances(progress or Progress(), command, engine, ranks=ranks)
        return _train(_with_out(config), circumstances)


def _check_trainable(config: Config) -> None:
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
        return _read(folder)
    if not (folder.path / BEGUN).is_file() or not (folder.path / "config.yaml").is_file():
        raise RunError(f"{folder.path} is no run that was begun; start it with ddcnn compare or ddcnn train --out")
    overrides = {"out": str(folder.path), "force": False, "compute": dict(compute or {})}
    config = Config.read(folder.path / "config.yaml", overrides)
    if ":" in config.model.name and not trust:
        raise RunError(
            f"{folder.path} names code of its own, {config.model.name}, which would be imported; if you know where "
            "the run is from, allow it with trust=True (--trust)"
        )
    circumstances = Circumstances(progress or Progress(), command, engine, resuming=True)
    if folder.read_json(BEGUN).get("job") != "train":
        refuse_ranks("compare")
        return _compare(config, circumstances)
    with joined(config.compute.device) as ranks:
        return _train(config, replace(circumstances, ranks=ranks))


def _compare(config: Config, circumstances: Circumstances) -> Comparison:
    check_alone(circumstances.ranks, "compare")
    if config.data.folds is None or config.data.fold is not None:
        return _compare_one(config, None, circumstances)

    def one(config: Config, dataset: Dataset) -> Comparison:
        assert config.out is not None
        begun = circumstances.resuming and RunFolder(config.out)
        if begun and begun.is_complete():
            return _read(begun)
        resuming = bool(begun and (begun.path / BEGUN).is_file())
        return _compare_one(config, dataset, replace(circumstances, resuming=resuming))

    return over_folds(config, one, circumstances.progress, resuming=circumstances.resuming)


def _compare_one(config: Config, dataset: Dataset | None, circumstances: Circumstances) -> Comparison:
    with Session.of(config, "compare", ("global", "coherent"), circumstances, dataset) as session:
        problem, recorder, workspace = session.problem, session.recorder, session.workspace
        trained = {"global": train_global(problem, recorder, workspace)}
        local = train_local(problem, session.engine, recorder, workspace)
        for name, label in _NAMES.items():
            trained[label] = aggregate(problem, local, name, recorder, workspace)
        trained["coherent"] = train_coherent(problem, recorder, workspace)
        trained["transfer"] = transfer(problem, trained["cnn-dnn"], recorder, workspace)
        return session.finish(trained, local)


def _train(config: Config, circumstances: Circumstances) -> Comparison:
    if not circumstances.ranks.alone:
        _check_spreadable(config, circumstances)
    if not circumstances.ranks.first:
        circumstances = replace(circumstances, progress=Progress())
    whole = {"global": ("global",), "local": ()}.get(config.strategy, ("coherent",))
    with Session.of(config, "train", whole, circumstances) as session:
        problem, recorder, workspace = session.problem, session.recorder, session.workspace
        if config.strategy == "global":
            return session.finish({"global": train_global(problem, recorder, workspace)}, None)
        if config.strategy == "coherent":
            return session.finish({"coherent": train_coherent(problem, recorder, workspace)}, None)
        local = train_local(problem, session.engine, recorder, workspace)
        name = config.aggregation.name
        trained = {_NAMES[name]: aggregate(problem, local, name, recorder, workspace)}
        if config.strategy == "transfer":
            trained["transfer"] = transfer(problem, trained[_NAMES[name]], recorder, workspace)
        return session.finish(trained, local)


def _check_spreadable(config: Config, circumstances: Circumstances) -> None:
    ranks = circumstances.ranks
    if config.strategy != "coherent":
        check_alone(ranks, f"strategy {config.strategy}")
    if config.compute.memory is not None:
        check_alone(ranks, "a run with compute.memory")
    if config.compute.engine != "in_process" or circumstances.engine is not None:
        check_alone(ranks, "an engine")


def _read(folder: RunFolder) -> Comparison:
    folder.clean()
    return Comparison(folder.read_json("comparison.json"), folder.path, {})


def _with_out(config: Config) -> Config:
    out = config.out or Path("runs") / f"{config.data.source.replace('/', '_')}-{config.model.name}-s{config.seed}"
    return config.model_copy(update={"out": out})

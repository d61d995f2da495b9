"""One strategy alone, in this process or as one of several ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddcnn.config import Config
from ddcnn.engines import InProcess, check_alone
from ddcnn.errors import ConfigError
from ddcnn.experiments.record import Comparison
from ddcnn.experiments.session import RunOptions, Session
from ddcnn.strategies import aggregate, train_coherent, train_global, train_local, transfer
from ddcnn.training import Progress

NAMES = {"average": "average", "vote": "vote", "dense": "cnn-dnn"}


def check_trainable(config: Config) -> None:
    """Raise a `ConfigError` if the strategy of a configuration cannot be trained as it says."""
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


def train_single(config: Config, options: RunOptions) -> Comparison:
    """Train ``config.strategy``; of several ranks, the first shows progress and writes the run.

    Raises
    ------
    ConfigError
        There are several ranks, and the run cannot be spread over them.
    """
    if not options.ranks.alone:
        _check_spreadable(config, options)
    if not options.ranks.first:
        options = replace(options, progress=Progress())
    whole = {"global": ("global",), "local": ()}.get(config.strategy, ("coherent",))
    with Session.of(config, "train", whole, options) as session:
        problem, recorder, workspace = session.problem, session.recorder, session.workspace
        if config.strategy == "global":
            return session.finish({"global": train_global(problem, recorder, workspace)}, None)
        if config.strategy == "coherent":
            return session.finish({"coherent": train_coherent(problem, recorder, workspace)}, None)
        local = train_local(problem, session.engine, recorder, workspace)
        name = config.aggregation.name
        trained = {NAMES[name]: aggregate(problem, local, name, recorder, workspace)}
        if config.strategy == "transfer":
            trained["transfer"] = transfer(problem, trained[NAMES[name]], recorder, workspace)
        return session.finish(trained, local)


def _check_spreadable(config: Config, options: RunOptions) -> None:
    ranks = options.ranks
    if config.strategy != "coherent":
        check_alone(ranks, f"strategy {config.strategy}")
    if config.compute.memory is not None:
        check_alone(ranks, "a run with compute.memory")
    engine = options.engine
    if not isinstance(engine, InProcess) and (engine is not None or config.compute.engine != "in_process"):
        check_alone(ranks, "an engine")


def with_out(config: Config) -> Config:
    """Return the configuration with a folder for the run; one that has none gets ``runs/DATA-MODEL-sSEED``."""
    out = config.out or Path("runs") / f"{config.data.source.replace('/', '_')}-{config.model.name}-s{config.seed}"
    return config.model_copy(update={"out": out})

"""Take the local CNNs that another run has trained, and train what comes after (``--init trained --weights RUN``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddcnn.config import Config
from ddcnn.data.splits import Split
from ddcnn.errors import ConfigError
from ddcnn.planning import Setup
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load, open_saved, strategies_of
from ddcnn.runs.run_validation import read_config
from ddcnn.strategies.initialization.start import Initialization, Start, Trained
from ddcnn.strategies.initialization.weights import loadable
from ddcnn.training import History, StageTimer

if TYPE_CHECKING:
    from ddcnn.strategies.strategy import StrategyContext

_LOCAL = "local"


def take_trained(context: StrategyContext) -> Start:
    """Return the local CNNs of the run, with what their training took and reached there."""
    setup, path = context.setup, _path(context.setup)
    with loadable(path, setup.config) as (folder, trust):
        network = load(path, _with_local_cnns(folder, trust=trust), trust=trust)
        results = folder.read_json("comparison.json")
        rows = [json.loads(line) for line in folder.read_text("metrics.jsonl").splitlines()]
    members = [n for n in range(network.local_cnns.members) if n not in network.missing]
    history = History(
        rows=[row for row in rows if str(row["stage"]).partition("/subdomain")[0] == _LOCAL],
        best_epochs=[row["best_epoch"] for row in results["subdomains"]],
        diverged=[row["diverged_epoch"] for row in results["subdomains"]],
    )
    stages = [_stage(setup, row) for row in results["details"]["stages"] if _is_before(row["name"])]
    *before, local = stages
    local.epochs = history.epochs
    progress = context.progress
    progress.begin(_LOCAL, epochs=history.epochs, steps=1, members=len(members))
    progress.resumed(history.rows)
    progress.end()
    trained = Trained({n: network.local_cnns.member_state(n) for n in members}, local, history)
    return Start(stages=before, trained=trained)


def _is_before(stage: str) -> bool:
    return stage == _LOCAL or stage.startswith("init/")


def _stage(setup: Setup, row: dict[str, Any]) -> StageTimer:
    return StageTimer(
        row["name"],
        setup.compute.device,
        seconds=row["seconds"],
        critical_path_seconds=row["critical_path_seconds"],
        peak_memory_bytes=row["peak_memory_bytes"],
    )


def check_trained(setup: Setup) -> None:
    """Raise a `ConfigError` if the local CNNs are not what this run would train: same images, split and network."""
    path, config = _path(setup), setup.config
    with loadable(path, config) as (folder, trust):
        _with_local_cnns(folder, trust=trust)
        theirs = read_config(folder)
        split = Split.from_json(folder.read_text("split.json"))
        content = folder.read_tensors("content.safetensors").get("digests")
    for section in ("decomposition", "model"):
        _check_same(path, section, theirs, config)
    ours = setup.data.split
    same = all(torch.equal(getattr(split, part), getattr(ours, part)) for part in ("train", "validation", "test"))
    if content is None or not torch.equal(content, setup.data.content) or not same:
        raise ConfigError(
            f"init.weights = {path} was trained on other images than this run, or split them in another way; give "
            f"this one the same data section and --seed {theirs.seed}"
        )
    if config.aggregation.aggregate_on != "train":
        raise ConfigError(
            "init.name = trained takes local CNNs that have seen all training images, so none are unseen: it cannot go "
            f"with aggregation.aggregate_on = {config.aggregation.aggregate_on}; use train"
        )


def _path(setup: Setup) -> Path:
    path: Path | None = setup.config.init.weights
    if path is None or path.is_file():
        raise ConfigError("init.name = trained takes the local CNNs of a run: say which, as --weights RUN")
    return path


def _with_local_cnns(folder: RunFolder, *, trust: bool) -> str:
    """Return a result of the run whose local CNNs were trained without communication."""
    for name in strategies_of(folder):
        if open_saved(folder, name, trust=trust).shares_local_cnns:
            return name
    raise ConfigError(
        f"init.weights = {folder.path} has no local CNNs that were trained by themselves; give a run of ddcnn compare, "
        "or of ddcnn train --strategy local or transfer"
    )


def _check_same(path: Path, section: str, theirs: Config, ours: Config) -> None:
    then, now = (getattr(config, section).model_dump(mode="json") for config in (theirs, ours))
    for name, value in then.items():
        if value != now[name]:
            raise ConfigError(
                f"init.weights = {path} has {section}.{name} = {value}, this run {now[name]}; its local CNNs are taken "
                "as they are, so give this run the same"
            )


TRAINED = Initialization(
    take_trained,
    "trained local CNNs",
    "The local CNNs are those of another run, as they are; what comes after them is trained.",
    check=check_trained,
)

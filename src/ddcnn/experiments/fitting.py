"""Train on images in memory, ``ddcnn.fit(X, y)``: no files are needed, and none are left unless that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.arrays import as_dataset
from ddcnn.data.description import InputDescription
from ddcnn.engines import build_engine
from ddcnn.errors import ConfigError
from ddcnn.experiments.compare import train
from ddcnn.experiments.given_images import as_config, refuse_for_files, taken
from ddcnn.experiments.job import Job
from ddcnn.network import CNNDNN
from ddcnn.planning import choose_threads, computing_with, decide, prepare
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import describe_data, save_networks
from ddcnn.strategies import StrategyContext, StrategyResult, check_strategies, run_strategies
from ddcnn.training import Progress, Workspace

FIELDS = {
    "model": "model.name",
    "grid": "decomposition.grid",
    "overlap": "decomposition.overlap",
    "strategy": "strategy",
    "aggregation": "aggregation.name",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "training.lr",
    "validation": "data.validation",
    "seed": "seed",
}
"""What has a short name in `fit`, and in `ddcnn.DomainDecomposedClassifier`."""


def fit(
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
    sample_weight: Any = None,
    model: str | None = None,
    grid: str | Sequence[int] | None = None,
    overlap: int | Sequence[int] | None = None,
    strategy: str | None = None,
    aggregation: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    validation: float | None = None,
    seed: int | None = None,
    config: Config | Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> CNNDNN:
    """Train on images and labels in memory, and return the network.

    All images are learned from, but for a tenth, at most 2,500, that chooses the epoch. None are set aside for a test:
    keep your own, or use `ddcnn.train` and `ddcnn.compare`, which do so, with the same images.

    Parameters
    ----------
    X, y, groups, layout, classes, sample_weight
        As in `ddcnn.as_dataset`.
    model, grid, overlap, strategy, aggregation, epochs, batch_size, lr, validation, seed
        The fields of the configuration of these names (``validation`` is the fraction that chooses the epoch); None: as
        ``config`` has it.
    config
        Anything else, a `ddcnn.Config` or nested mappings, such as ``{"training": {"optimizer": "adamw"}}``.
    out
        A folder for the run, which `ddcnn.load` reads and, if it was interrupted, ``ddcnn.resume(out, (X, y))`` goes on
        with; None: nothing is written.
    progress
        Who is told how it goes; None: nobody.

    Returns
    -------
    network
        In eval mode: ``network.predict_proba(images)``, ``network.predict(images)``, or scores by calling it.

    Raises
    ------
    DdcnnError
        Images, labels or settings cannot be used.
    """
    given = {
        "model": model, "grid": grid, "overlap": overlap, "strategy": strategy, "aggregation": aggregation,
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "validation": validation, "seed": seed,
    }  # fmt: skip
    full = configured(config, given)
    if y is not None:  # a table names files
        refuse_for_files(full.data)
    dataset = as_dataset(
        X, y, groups=groups, layout=layout, classes=classes, sample_weight=sample_weight, config=full.data
    )
    if out is None:
        return fit_in_memory(full, dataset, progress).network
    full = full.model_copy(update={"out": Path(out)})
    found = train(full, dataset, progress=progress)
    name: str = found.results["trained"]
    network: CNNDNN = found.networks[name]
    return network.eval()


def configured(config: Config | Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """Return the configuration of a training on all images, with the fields of `FIELDS` that are not None."""
    as_config({} if config is None else config)  # what cannot be used is said before it is completed
    values = config.model_dump() if isinstance(config, Config) else dict(config or {})
    for name, value in given.items():
        if value is None:
            continue
        *parents, last = FIELDS[name].split(".")
        section = values
        for parent in parents:
            section[parent] = dict(section.get(parent) or {})
            section = section[parent]
        section[last] = value
    data = dict(values.get("data") or {})
    if not isinstance(config, Config) and data.get("test"):
        raise ConfigError(
            "fit sets no images aside for a test; leave out data.test, or use ddcnn.train or ddcnn.compare"
        )
    values["data"] = data | {"test": 0}
    found = Config.parse(values)
    if found.data.folds is not None:
        raise ConfigError("fit trains one network on all images; leave data.folds out, or use ddcnn.compare")
    return found


@dataclass(frozen=True)
class Fitted:
    """A network that was trained in memory, and what a run would keep beside it.

    Attributes
    ----------
    config, data
        As in ``config.yaml`` and ``data.json`` of a run.
    name, network, aggregation, shares_local_cnns, whole_image
        What was trained: as `ddcnn.strategies.StrategyResult` has it.
    """

    config: Config
    data: dict[str, Any]
    name: str
    network: CNNDNN
    aggregation: str
    shares_local_cnns: bool
    whole_image: bool

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write a run that `ddcnn.load` reads; nothing was tested, so it has no results."""
        folder = RunFolder(path)
        folder.create(force=force)
        folder.write_text("config.yaml", self.config.model_copy(update={"out": Path(path)}).to_yaml())
        folder.write_json("data.json", self.data)
        missing = [{"index": n, "missing": True} for n in self.network.missing]
        found = {"strategies": [{"name": self.name}], "subdomains": missing, "details": {}, "trained": self.name}
        folder.write_json("environment.json", {})
        folder.write_text("metrics.jsonl", "")
        folder.write_json("comparison.json", found)
        save_networks(folder, {self.name: self})
        folder.seal()
        folder.clean()


def fit_in_memory(config: Config, dataset: Dataset, progress: Progress | None = None) -> Fitted:
    """Train one strategy; nothing is written but, for an engine with workers, what these are told."""
    progress = progress or Progress()
    config, _ = taken(config, dataset)
    job = Job.of("train", config)
    job.check(config)
    setup = prepare(config, dataset)
    check_strategies([config.strategy], setup)
    engine = build_engine(config.compute, setup.compute.device.type)
    setup, choices, _ = decide(setup, job.whole_images, engine.workers)
    for what, text in choices.items():
        progress.note(f"{what} {text}")
    with ExitStack() as contexts:
        threads = choose_threads(
            setup.config.compute.threads if engine.serial else None, setup.compute.device, alone=True
        )
        contexts.enter_context(computing_with(threads.count))
        workspace = None
        if not engine.serial:
            folder = Path(contexts.enter_context(TemporaryDirectory(prefix="ddcnn-")))
            workspace = Workspace(folder, setup.fingerprint, progress.note)
        contexts.enter_context(engine)
        context = StrategyContext(setup, engine, progress, workspace, job.aggregations)
        results = run_strategies(list(job.strategies), context)
    name, result = list(results.items())[-1]
    return _fitted(setup.config, describe_data(setup.data, setup.config.data), name, result)


def _fitted(config: Config, data: dict[str, Any], name: str, result: StrategyResult) -> Fitted:
    network = result.network.eval()
    network.describe(InputDescription.from_json(data["input"]))
    return Fitted(config, data, name, network, result.aggregation, result.shares_local_cnns, result.whole_image)

"""Trained networks to files of a run and back. Parameters are those of each local CNN, whatever trained them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.config import Config, DataConfig
from ddcnn.data.description import InputDescription
from ddcnn.data.training_data import TrainingData
from ddcnn.errors import RunError, in_one_line, nearest
from ddcnn.fusion import Backend
from ddcnn.models import Normalization
from ddcnn.network import CNNDNN
from ddcnn.network_factory import NetworkFactory
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.run_validation import (
    SavedNetwork,
    changed_code,
    check_parameters,
    foreign_code,
    read_config,
    read_data,
    read_networks,
    untrusted,
    with_options,
)


class Result(Protocol):
    """What is saved of a trained network; `ddcnn.strategies.StrategyResult` is one."""

    @property
    def network(self) -> CNNDNN:
        """The network."""

    @property
    def aggregation(self) -> str:
        """Name of its aggregation."""

    @property
    def shares_local_cnns(self) -> bool:
        """Whether other results have the same local CNNs."""

    @property
    def whole_image(self) -> bool:
        """Whether it is the global CNN."""


def save_networks(folder: RunFolder, results: Mapping[str, Result]) -> None:
    """Write the parameters of trained networks, by name of the result, and ``networks.json``: which file is what.

    Local CNNs that results share lie in ``locals/<index>.safetensors``, the parameters of their aggregations in a file
    each; any other network is one file. A missing local CNN has no file.
    """
    saved = {name: _described(result) for name, result in results.items()}
    folder.write_json(
        "networks.json", {name: one.model_dump(mode="json", exclude_none=True) for name, one in saved.items()}
    )
    for name, result in results.items():
        if not saved[name].shares_local_cnns:
            folder.write_tensors(f"{name}.safetensors", result.network.unfused_state())
        elif result.network.aggregation.state_dict():
            file = AGGREGATIONS.find(result.aggregation).file
            folder.write_tensors(file, result.network.aggregation.state_dict())
    shared = [result.network for result in results.values() if result.shares_local_cnns]
    for network in shared[:1]:
        for n in range(network.local_cnns.members):
            if n not in network.missing:
                folder.write_tensors(f"locals/{n}.safetensors", network.local_cnns.member_state(n))


def describe_data(data: TrainingData, config: DataConfig) -> dict[str, Any]:
    """Return what a network must know of the images it was made for, and where they came from."""
    dataset = data.dataset
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "image_shape": list(dataset.images.shape[1:]),
        "image_type": str(dataset.images.dtype).removeprefix("torch."),
        "mean": data.normalization.mean.tolist(),
        "std": data.normalization.std.tolist(),
        "input": InputDescription.of(dataset, config).to_json(),
        "source": dataset.source,
        "notes": list(dataset.notes),
    }


def load(run: Path | str, strategy: str | None = None, *, trust: bool = False, backend: Backend = "auto") -> CNNDNN:
    """Load a trained network from a run.

    Parameters
    ----------
    run
        The folder of a run that `ddcnn.train` or `ddcnn.compare` wrote.
    strategy
        ``"global"``, ``"average"``, ``"vote"``, ``"cnn-dnn"``, ``"coherent"``, ``"transfer"`` or another result of
        the run; None takes the one that was trained, and of a comparison the one with the best validation accuracy.
    trust
        Whether you trust who made the run. Only then is code that it names as ``module:function`` imported, which runs
        it, and are images of any size accepted; a run with networks of ddcnn needs no trust.
    backend
        How its local CNNs run: as in `ddcnn.fuse`.

    Returns
    -------
    network
        In eval mode, on the CPU; from raw images (B, C, *S), 0..255 where they were uint8, to scores (B, K). Local CNNs
        that the run ended without are `ddcnn.CNNDNN.missing`.

    Raises
    ------
    RunError
        The run is missing, not complete or damaged, has no such strategy, or its files do not fit one another.
    """
    folder = RunFolder(run)
    folder.check()
    if (folder.path / "folds").is_dir():
        raise RunError(f"{folder.path} compares folds; give one of them, such as {folder.path / 'folds' / '0'}")
    config, data = read_config(folder), read_data(folder, trust=trust)
    available = read_networks(folder, config)
    name = strategy or best_strategy(folder)
    if name not in available:
        raise RunError(f"{folder.path} has no strategy {name!r}: {nearest(name, available)}")
    saved = available[name]
    missing = _missing(folder) if saved.shares_local_cnns else []
    foreign = foreign_code(config, saved.aggregation)
    if foreign and not trust:
        raise RunError(untrusted(folder, foreign[0]))
    factory = _factory(with_options(config, saved), data)
    if not foreign:
        check_parameters(folder, factory, name, saved, missing=missing, trust=trust)
    network = _build(factory, saved, missing, backend)
    _fill(folder, network, name, saved)
    for code in changed_code(folder, config, saved.aggregation):
        warnings.warn(
            f"the module of {code} is not the one with which {folder.path} was trained: this network may decide "
            "otherwise; put the module back, or train again",
            stacklevel=2,
        )
    if saved.thresholds is not None and len(saved.thresholds) != len(data["classes"]):
        raise RunError(
            f"{folder.path / 'networks.json'}: {name} has {len(saved.thresholds)} thresholds, but there are "
            f"{len(data['classes'])} classes; train again"
        )
    network.thresholds = None if saved.thresholds is None else tuple(saved.thresholds)
    if "input" in data:
        network.describe(InputDescription.from_json(data["input"]))
    return network.eval()


@dataclass(frozen=True)
class Opened:
    """What a run says of one of its networks.

    Attributes
    ----------
    config, data
        As in ``config.yaml`` and ``data.json``.
    name, aggregation, shares_local_cnns, whole_image
        Of the network.
    """

    config: Config
    data: dict[str, Any]
    name: str
    aggregation: str
    shares_local_cnns: bool
    whole_image: bool


def open_saved(folder: RunFolder, strategy: str | None = None, *, trust: bool = False) -> Opened:
    """Return what a run says of a network; parameters and errors are those of `load`."""
    folder.manifest()
    config, data = read_config(folder), read_data(folder, trust=trust)
    available = read_networks(folder, config)
    name = strategy or best_strategy(folder)
    if name not in available:
        raise RunError(f"{folder.path} has no strategy {name!r}: {nearest(name, available)}")
    saved = available[name]
    return Opened(config, data, name, saved.aggregation, saved.shares_local_cnns, saved.whole_image)


def strategies_of(folder: RunFolder) -> list[str]:
    """Return the names of the networks that a run has."""
    return list(read_networks(folder, read_config(folder)))


def best_strategy(folder: RunFolder) -> str:
    """Return the network that is meant where none is named.

    It is the one that ``ddcnn train`` was asked for; in a comparison, the one with the best validation accuracy. Among
    equals it is the last: transfer before coherent, CNN-DNN, vote and average, and these before the global CNN.
    """
    available = strategies_of(folder)
    results = folder.read_json("comparison.json")
    trained = results.get("trained")
    if isinstance(trained, str) and trained in available:
        return trained
    accuracies = {row["name"]: row.get("validation_accuracy") or 0.0 for row in results["strategies"]}
    return max(reversed(available), key=lambda name: accuracies[name])


def _described(result: Result) -> SavedNetwork:
    return SavedNetwork(
        whole_image=result.whole_image,
        aggregation=result.aggregation,
        shares_local_cnns=result.shares_local_cnns,
        options=getattr(result.network.aggregation, "built_with", None),
        thresholds=None if result.network.thresholds is None else [*result.network.thresholds],
    )


def _missing(folder: RunFolder) -> list[int]:
    rows = folder.read_json("comparison.json").get("subdomains")
    known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [row["index"] for row in known if row.get("missing") and isinstance(row.get("index"), int)]


def _factory(config: Config, data: Mapping[str, Any]) -> NetworkFactory:
    channels, *size = data["image_shape"]
    normalization = Normalization(torch.tensor(data["mean"]), torch.tensor(data["std"]))
    return NetworkFactory(config, channels, len(data["classes"]), tuple(size), normalization)


def _build(factory: NetworkFactory, saved: SavedNetwork, missing: Sequence[int], backend: Backend) -> CNNDNN:
    if saved.whole_image:
        return factory.global_network(factory.global_cnn())
    return factory.network(factory.local_cnns(backend=backend), factory.aggregation(saved.aggregation), missing)


def _fill(folder: RunFolder, network: CNNDNN, name: str, saved: SavedNetwork) -> None:
    if saved.shares_local_cnns:
        members = [n for n in network.local_cnns.indices if n not in network.missing]
        files = {f"locals.{n}": f"locals/{n}.safetensors" for n in members}
        if network.aggregation.state_dict():
            files["aggregation"] = AGGREGATIONS.find(saved.aggregation).file
        tensors = {prefix: folder.read_tensors(file) for prefix, file in files.items()}
        state = {f"{prefix}.{key}": value for prefix, part in tensors.items() for key, value in part.items()}
    else:
        state = folder.read_tensors(f"{name}.safetensors")
    try:
        network.load_unfused_state(state)
    except (KeyError, RuntimeError) as error:
        raise RunError(
            f"{folder.path}: the parameters of {name} do not fit the network: {in_one_line(error)}"
        ) from None

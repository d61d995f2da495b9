"""StrategyResult networks to files of a run and back. Parameters are those of each local CNN, whatever trained them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ddcnn.aggregation import Average, build_aggregation
from ddcnn.config import Config
from ddcnn.errors import RunError, in_one_line, nearest
from ddcnn.models import MODELS, Normalization, build
from ddcnn.network import CNNDNN
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.run_validation import AGGREGATED, WHOLE, check_parameters, geometry, read_config, read_data, untrusted
from ddcnn.strategies.problem import Problem


def save_networks(folder: RunFolder, networks: dict[str, CNNDNN]) -> None:
    """Write the parameters of trained networks, by name of the strategy.

    ``locals/<index>.safetensors`` (shared by average, vote and cnn-dnn), ``aggregation.safetensors``, and one file
    each for global, coherent and transfer. A missing local CNN has no file.
    """
    for name, network in networks.items():
        if name in WHOLE:
            folder.write_tensors(f"{name}.safetensors", network.unfused_state())
        elif list(network.aggregation.parameters()):
            folder.write_tensors("aggregation.safetensors", network.aggregation.state_dict())
    if separate := [network for name, network in networks.items() if name in AGGREGATED]:
        local_cnns = separate[0].local_cnns
        for n in range(local_cnns.members):
            if n not in separate[0].missing:
                folder.write_tensors(f"locals/{n}.safetensors", local_cnns.member_state(n))


def missing_of(networks: dict[str, CNNDNN]) -> tuple[int, ...]:
    """Return the subdomains whose local CNNs are missing from average, vote and cnn-dnn."""
    return next((network.missing for name, network in networks.items() if name in AGGREGATED), ())


def describe_data(problem: Problem) -> dict[str, Any]:
    """Return what a network must know of the images it was made for, and where they came from."""
    dataset = problem.dataset
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "image_shape": list(dataset.images.shape[1:]),
        "image_type": str(dataset.images.dtype).removeprefix("torch."),
        "mean": problem.normalization.mean.tolist(),
        "std": problem.normalization.std.tolist(),
        "source": dataset.source,
    }


def load(run: Path | str, strategy: str | None = None, *, trust: bool = False) -> CNNDNN:
    """Load a trained network from a run.

    Parameters
    ----------
    run
        The folder of a run that `ddcnn.train` or `ddcnn.compare` wrote.
    strategy
        ``"global"``, ``"average"``, ``"vote"``, ``"cnn-dnn"``, ``"coherent"`` or ``"transfer"``; None takes the one
        with the best validation accuracy.
    trust
        Whether you trust who made the run. Only then is a network of the form ``module:function`` imported, which runs
        its code, and are images of any size accepted; a run with a network of ddcnn needs no trust.

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
    name = strategy or best_strategy(folder)
    available = strategies_of(folder)
    if name not in available:
        raise RunError(f"{folder.path} has no strategy {name!r}: {nearest(name, available)}")
    missing = _missing(folder) if name in AGGREGATED else []
    if config.model.name in MODELS:
        check_parameters(folder, config, data, name, missing=missing, trust=trust)
    elif ":" in config.model.name and not trust:
        raise RunError(untrusted(folder, config.model.name))
    network = _build(config, data, name, missing)
    _fill(folder, network, name)
    return network.eval()


def strategies_of(folder: RunFolder) -> list[str]:
    """Return the names of the strategies that a run has."""
    return [name for name, _ in _validated(folder)]


def best_strategy(folder: RunFolder) -> str:
    """Return the name of the strategy with the best validation accuracy; among equals, the first."""
    return max(_validated(folder), key=lambda row: row[1])[0]


def _validated(folder: RunFolder) -> list[tuple[str, float]]:
    """Return name and validation accuracy of each strategy of a run."""
    rows = folder.read_json("comparison.json").get("strategies")
    rows = rows if isinstance(rows, list) else []
    found = [(row.get("name"), row.get("validation_accuracy") or 0.0) for row in rows if isinstance(row, dict)]
    right = [(name, v) for name, v in found if name in (*AGGREGATED, *WHOLE) and isinstance(v, int | float)]
    if not rows or len(right) < len(rows):
        raise RunError(
            f"{folder.path / 'comparison.json'} should list strategies ({', '.join((*AGGREGATED, *WHOLE))}) with their "
            f"validation accuracy; train again"
        )
    return right


def _missing(folder: RunFolder) -> list[int]:
    rows = folder.read_json("comparison.json").get("subdomains")
    known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [row["index"] for row in known if row.get("missing") and isinstance(row.get("index"), int)]


def _build(config: Config, data: dict[str, Any], name: str, missing: Sequence[int]) -> CNNDNN:
    channels, *size = data["image_shape"]
    classes = len(data["classes"])
    grid, width = geometry(config, tuple(size), name)
    aggregation = AGGREGATED.get(name, config.aggregation.name)
    modules = [
        build(config.model.name, channels, classes, s.shape, width=width, options=config.model.options)
        for s in grid.subdomains(size)
    ]
    last = Average() if name == "global" else build_aggregation(aggregation, len(grid), classes, config.aggregation)
    normalization = Normalization(torch.tensor(data["mean"]), torch.tensor(data["std"]))
    return CNNDNN(grid, modules, last, image_size=size, normalization=normalization, missing=missing)


def _fill(folder: RunFolder, network: CNNDNN, name: str) -> None:
    members = [n for n in network.local_cnns.indices if n not in network.missing]
    if name in AGGREGATED:
        parts = {f"locals.{n}": f"locals/{n}.safetensors" for n in members}
        parts |= {"aggregation": "aggregation.safetensors"} if AGGREGATED[name] == "dense" else {}
        tensors = {prefix: folder.read_tensors(file) for prefix, file in parts.items()}
        state = {f"{prefix}.{key}": value for prefix, part in tensors.items() for key, value in part.items()}
    else:
        state = folder.read_tensors(f"{name}.safetensors")
    try:
        network.load_unfused_state(state)
    except (KeyError, RuntimeError) as error:
        raise RunError(
            f"{folder.path}: the parameters of {name} do not fit the network: {in_one_line(error)}"
        ) from None

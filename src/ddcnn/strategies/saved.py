"""Trained networks to files of a run and back. Parameters are those of each local CNN, whatever trained them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddcnn.aggregation import Average, build_aggregation
from ddcnn.config import Config
from ddcnn.decomposition import Grid
from ddcnn.errors import RunError, nearest
from ddcnn.models import Normalization, build, width_rule
from ddcnn.network import CNNDNN
from ddcnn.run import RunFolder
from ddcnn.strategies.problem import Problem

AGGREGATED = {"average": "average", "vote": "vote", "cnn-dnn": "dense"}
WHOLE = ("global", "coherent", "transfer")


def save_networks(folder: RunFolder, networks: dict[str, CNNDNN]) -> None:
    """Write the parameters of trained networks, by name of the strategy.

    ``locals/<index>.safetensors`` (shared by average, vote and cnn-dnn), ``aggregation.safetensors``, and one file
    each for global, coherent and transfer.
    """
    for name, network in networks.items():
        if name in WHOLE:
            folder.write_tensors(f"{name}.safetensors", network.unfused_state())
        elif list(network.aggregation.parameters()):
            folder.write_tensors("aggregation.safetensors", network.aggregation.state_dict())
    if separate := [network for name, network in networks.items() if name in AGGREGATED]:
        local_cnns = separate[0].local_cnns
        for n in range(local_cnns.members):
            folder.write_tensors(f"locals/{n}.safetensors", local_cnns.member_state(n))


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


def load(run: Path | str, strategy: str | None = None) -> CNNDNN:
    """Load a trained network from a run.

    Parameters
    ----------
    run
        The folder of a run that `ddcnn.train` or `ddcnn.compare` wrote.
    strategy
        ``"global"``, ``"average"``, ``"vote"``, ``"cnn-dnn"``, ``"coherent"`` or ``"transfer"``; None takes the one
        with the best validation accuracy.

    Returns
    -------
    network
        In eval mode, on the CPU; from raw images (B, C, *S), 0..255 where they were uint8, to scores (B, K).

    Raises
    ------
    RunError
        The run is missing, not complete or damaged, or has no such strategy.
    """
    folder = RunFolder(run)
    folder.check()
    if (folder.path / "folds").is_dir():
        raise RunError(f"{folder.path} compares folds; give one of them, such as {folder.path / 'folds' / '0'}")
    config = Config.read(folder.path / "config.yaml")
    data = folder.read_json("data.json")
    name = strategy or best_strategy(folder)
    available = strategies_of(folder)
    if name not in available:
        raise RunError(f"{folder.path} has no strategy {name!r}: {nearest(name, available)}")
    network = _build(config, data, name)
    _fill(folder, network, name)
    return network.eval()


def strategies_of(folder: RunFolder) -> list[str]:
    """Return the names of the strategies that a run has."""
    return [str(row["name"]) for row in folder.read_json("comparison.json")["strategies"]]


def best_strategy(folder: RunFolder) -> str:
    """Return the name of the strategy with the best validation accuracy; among equals, the first."""
    rows = folder.read_json("comparison.json")["strategies"]
    return str(max(rows, key=lambda row: row["validation_accuracy"] or 0.0)["name"])


def _build(config: Config, data: dict[str, Any], name: str) -> CNNDNN:
    channels, *size = data["image_shape"]
    classes = len(data["classes"])
    grid = Grid(config.decomposition.grid, overlap=config.decomposition.overlap)
    width = config.model.width_factor or width_rule(len(grid))
    aggregation = AGGREGATED.get(name, config.aggregation.name)
    if name == "global":
        grid, width = Grid((1,) * len(size)), 1.0
    modules = [
        build(config.model.name, channels, classes, s.shape, width=width, options=config.model.options)
        for s in grid.subdomains(size)
    ]
    last = Average() if name == "global" else build_aggregation(aggregation, len(grid), classes, config.aggregation)
    normalization = Normalization(torch.tensor(data["mean"]), torch.tensor(data["std"]))
    return CNNDNN(grid, modules, last, image_size=size, normalization=normalization)


def _fill(folder: RunFolder, network: CNNDNN, name: str) -> None:
    if name in AGGREGATED:
        parts = {f"locals.{n}": f"locals/{n}.safetensors" for n in network.local_cnns.indices}
        parts |= {"aggregation": "aggregation.safetensors"} if AGGREGATED[name] == "dense" else {}
        tensors = {prefix: folder.read_tensors(file) for prefix, file in parts.items()}
        state = {f"{prefix}.{key}": value for prefix, part in tensors.items() for key, value in part.items()}
    else:
        state = folder.read_tensors(f"{name}.safetensors")
    try:
        network.load_unfused_state(state)
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{folder.path}: the parameters of {name} do not fit the network: {error}") from None

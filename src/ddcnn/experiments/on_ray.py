"""The coherent model over ranks of a Ray cluster: they train, and leave the result in the folder of the run."""

from __future__ import annotations

import math
from typing import Any

import torch

from ddcnn.config import Config
from ddcnn.engines import Engine, InProcess, OnRay, build_engine, joined, launched, run_on_ranks
from ddcnn.experiments.record import Comparison, is_begun, read_results, reopened
from ddcnn.experiments.session import RunOptions
from ddcnn.experiments.single import train_single
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load
from ddcnn.strategies import find_device
from ddcnn.training import Progress


def is_for_ray(config: Config, engine: Engine | None) -> bool:
    """Tell whether a run is to be trained by ranks that Ray starts; they themselves, once started, are not."""
    on_ray = config.compute.engine == "ray" if engine is None else isinstance(engine, OnRay)
    return config.strategy == "coherent" and on_ray and not launched()


def train_on_ray(config: Config, options: RunOptions) -> Comparison:
    """Train a coherent model by ranks on a Ray cluster, which see the folder of the run and the data."""
    assert config.out is not None
    folder = RunFolder(config.out)
    if not options.resuming:
        folder.check_free(force=config.force)
        if folder.path.exists():
            folder.create(force=config.force)  # so that no rank takes what was there for what it has begun
    with options.engine or build_engine(config.compute, find_device(config.compute.device).type) as engine:
        assert isinstance(engine, OnRay)
        subdomains = math.prod(config.decomposition.grid)
        count = config.compute.workers or min(engine.workers, subdomains)
        arguments = {"config": config.model_dump(mode="json"), "command": options.command}
        function, beside = f"{__name__}:train_as_rank", folder.path.absolute().parent
        run_on_ranks(engine, count, function, arguments, options.progress, beside)
    found = read_results(folder)
    return Comparison(found.results, found.run, {"coherent": load(folder.path, "coherent", trust=True)})


def train_as_rank(arguments: dict[str, Any], progress: Progress) -> None:
    """Do the work of one rank: begin the run, or go on with it if ranks before these have begun it."""
    config = Config.parse(arguments["config"])
    assert config.out is not None
    folder = RunFolder(config.out)
    with joined(config.compute.device, config.compute.replicas) as ranks:
        resuming = bool(ranks.all_max(torch.tensor([int(ranks.first and is_begun(folder))])))
        if resuming:
            config = reopened(folder, {})
        options = RunOptions(progress, arguments["command"], InProcess(), resuming=resuming, ranks=ranks)
        train_single(config, options)

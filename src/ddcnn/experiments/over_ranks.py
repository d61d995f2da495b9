"""One strategy over the ranks that an engine starts: they train, and leave the result in the folder of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ddcnn.config import Config
from ddcnn.data.source_paths import read_by
from ddcnn.engines import InProcess, RankStarter, joined
from ddcnn.experiments.record import Comparison, is_begun, read_results, reopened
from ddcnn.experiments.session import RunOptions, as_rank
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load
from ddcnn.training import Progress


def train_over_ranks(config: Config, options: RunOptions, engine: RankStarter) -> Comparison:
    """Train by ranks that an engine starts, which see the folder of the run and the data."""
    assert config.out is not None
    folder = RunFolder(config.out)
    if not options.resuming:
        folder.check_free(force=config.force, sources=read_by(config))
        if folder.path.exists():
            folder.create(force=config.force)  # so that no rank takes what was there for what it has begun
            folder.release()
    arguments = {"config": config.model_dump(mode="json"), "command": options.command}
    engine.run_on_ranks(
        config.compute.workers, train_as_rank, arguments, options.progress, folder.path.absolute().parent
    )
    found = read_results(folder)
    return replace(found, networks={config.strategy: load(folder.path, config.strategy, trust=True)})


def train_as_rank(arguments: dict[str, Any], progress: Progress) -> None:
    """Do the work of one rank: begin the run, or go on with it if ranks before these have begun it."""
    from ddcnn.experiments.compare import train_here

    config = Config.parse(arguments["config"])
    assert config.out is not None
    folder = RunFolder(config.out)
    with joined(config.compute.device, config.compute.replicas) as ranks:
        resuming = bool(ranks.all_max(torch.tensor([int(ranks.first and is_begun(folder))])))
        if resuming:
            config = reopened(folder, {})
        options = RunOptions(progress, arguments["command"], InProcess(), resuming=resuming)
        train_here(config, as_rank(options, ranks))

"""A run as it is written: progress to ``metrics.jsonl``, results and provenance to files."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddcnn.config import Config
from ddcnn.errors import RunError
from ddcnn.experiments.decisions import Judge
from ddcnn.machine import processor
from ddcnn.network import CNNDNN
from ddcnn.runs.folder import CHECKPOINTS, RunFolder, versions
from ddcnn.runs.networks import describe_data, missing_of, save_networks
from ddcnn.strategies import LocalResult, Problem, StrategyResult
from ddcnn.training import Progress, StageTimer

_EXAMPLES = 8
BEGUN = f"{CHECKPOINTS}/run.json"


@dataclass(frozen=True)
class Comparison:
    """What a run found.

    Attributes
    ----------
    results
        As in ``comparison.json``: one entry per strategy and per subdomain, and ``"details"``.
    run
        The folder of the run.
    networks
        The trained networks, by name of the strategy.
    """

    results: dict[str, Any]
    run: Path
    networks: dict[str, Any]


class Recorder(Progress):
    """Writes every epoch to the run, and passes all events on."""

    def __init__(self, folder: RunFolder, watcher: Progress) -> None:
        self.folder, self.watcher = folder, watcher

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        """Pass on."""
        self.watcher.begin(stage, epochs=epochs, steps=steps, members=members)

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        """Pass on."""
        self.watcher.advance(images, mean)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write, and pass on."""
        self.folder.add_metrics(row)
        self.watcher.epoch(row)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write, and pass on."""
        for row in rows:
            self.folder.add_metrics(row)
        self.watcher.resumed(rows)

    def beside(self) -> Recorder:
        """Return a recorder of the same run for a stage that runs at the same time."""
        return Recorder(self.folder, self.watcher.beside())

    def end(self) -> None:
        """Pass on."""
        self.watcher.end()

    def note(self, text: str) -> None:
        """Pass on."""
        self.watcher.note(text)


def open_run(folder: RunFolder, problem: Problem, *, job: str, command: str, choices: dict[str, str]) -> None:
    """Make the folder of a run, and write what is known before the training."""
    folder.create(force=problem.config.force)
    begun = {"job": job, "fingerprint": problem.fingerprint, "choices": choices}
    folder.write_json(BEGUN, begun)
    folder.write_text("config.yaml", problem.config.to_yaml())
    folder.write_json("environment.json", environment(problem.device, command))
    folder.write_json("data.json", describe_data(problem))
    folder.write_text("split.json", problem.split.to_json())
    if bad := problem.dataset.bad_files:
        files = [{"file": one.file, "reason": one.reason} for one in bad]
        folder.write_json("bad_files.json", {"on_bad_file": problem.config.data.on_bad_file, "files": files})


def reopen_run(folder: RunFolder, problem: Problem) -> dict[str, str]:
    """Open the folder of a run that did not finish; return the choices that were made for it.

    Raises
    ------
    RunError
        It is of other data, or of another configuration.
    """
    begun = folder.read_json(BEGUN)
    if begun.get("fingerprint") != problem.fingerprint:
        raise RunError(
            f"{folder.path} began with other data or another configuration than there are now; put them back, or "
            "start anew with another --out"
        )
    if problem.ranks.first:
        folder.sweep()
    return dict(begun["choices"])


def is_begun(folder: RunFolder) -> bool:
    """Tell whether there is a run that was begun, complete or not."""
    return (folder.path / BEGUN).is_file() and (folder.path / "config.yaml").is_file()


def reopened(folder: RunFolder, compute: Mapping[str, Any]) -> Config:
    """Return the configuration of a run that was begun, with other values of ``compute``.

    Raises
    ------
    RunError
        The folder is no such run.
    """
    if not is_begun(folder):
        raise RunError(f"{folder.path} is no run that was begun; start it with ddcnn compare or ddcnn train --out")
    overrides = {"out": str(folder.path), "force": False, "compute": dict(compute)}
    return Config.read(folder.path / "config.yaml", overrides)


def read_results(folder: RunFolder) -> Comparison:
    """Return what a complete run found; its checkpoints are of no more use."""
    folder.clean()
    return Comparison(folder.read_json("comparison.json"), folder.path, {})


def finish_run(
    folder: RunFolder | None,
    problem: Problem,
    trained: dict[str, StrategyResult],
    *,
    local: LocalResult | None,
    stages: list[StageTimer],
    choices: dict[str, str],
    command: str,
) -> Comparison:
    """Evaluate what was trained, the test part for the first time, write everything, and seal the run.

    Without a folder nothing is written: of several ranks one writes.
    """
    assert problem.config.out is not None
    results = _results(problem, trained, local=local)
    results["details"] |= {
        "command": command,
        "stages": [_stage(stage) for stage in stages],
        "choices": choices,
        "versions": environment(problem.device, command)["versions"],
    }
    results = {"data": results.pop("data"), **results, "run": str(problem.config.out)}
    networks = {name: t.network for name, t in trained.items()}
    if folder is not None:
        _write(folder, problem, results, networks)
    return Comparison(results, problem.config.out, networks)


def _write(folder: RunFolder, problem: Problem, results: dict[str, Any], networks: dict[str, CNNDNN]) -> None:
    save_networks(folder, networks)
    spread = torch.linspace(0, len(problem.split.test) - 1, min(_EXAMPLES, len(problem.split.test))).long()
    chosen = problem.split.test[spread]  # files are often sorted by class
    examples = {"images": problem.dataset.images[chosen], "labels": problem.dataset.labels[chosen]}
    if problem.dataset.annotation is not None:
        examples["annotation"] = torch.stack([problem.dataset.annotation(int(i)) for i in chosen]).to(torch.uint8)
    folder.write_tensors("examples.safetensors", examples)
    folder.write_json("comparison.json", results)
    folder.seal()
    folder.clean()


def environment(device: torch.device, command: str) -> dict[str, Any]:
    """Return versions, machine and command: what a figure needs to be trusted."""
    return {
        "command": command,
        "versions": versions(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _results(problem: Problem, trained: dict[str, StrategyResult], *, local: LocalResult | None) -> dict[str, Any]:
    judge, config = Judge(problem, local), problem.config
    decisions = {name: judge.judge(t) for name, t in trained.items()}
    missing = missing_of({name: t.network for name, t in trained.items()})
    by_subdomain = [] if local is None else judge.judge_local(local.network, missing)
    degraded = {name: found for name, t in trained.items() if (found := judge.judge_missing(t)) is not None}
    counts = {part: len(getattr(problem.split, part)) for part in ("train", "validation", "test")}
    return {
        "data": config.data.source,
        "model": config.model.name,
        "grid": list(config.decomposition.grid),
        "seed": config.seed,
        "device": problem.device.type,
        "strategies": [
            {
                "name": name,
                **{f"{part}_accuracy": value for part, value in decisions[name].accuracy.items()},
                "test_auc": decisions[name].auc,
                "test_f1": decisions[name].f1,
                "parameters": sum(p.numel() for p in t.network.parameters()),
                "epochs": t.epochs,
                "seconds": t.seconds,
                "critical_path_seconds": t.critical_path_seconds,
                "peak_memory_bytes": t.peak_memory_bytes,
            }
            for name, t in trained.items()
        ],
        "subdomains": []
        if local is None
        else [
            {
                "index": s.index,
                "box": [list(axis) for axis in s.box],
                "parameters": sum(p.numel() for p in local.network.extract(n).parameters()),
                "test_accuracy": by_subdomain[n]["test_accuracy"],
                "best_epoch": local.history.best_epochs[n],
                "diverged_epoch": local.history.diverged[n],
            }
            | ({"missing": True} if n in missing else {})
            for n, s in enumerate(local.network.subdomains)
        ],
        "details": {
            "classes": list(problem.dataset.classes),
            "image_shape": list(problem.dataset.images.shape[1:]),
            "plane": [axis % len(problem.dataset.image_size) for axis in problem.dataset.plane],
            "samples": counts,
            "confusion": {name: d.confusion for name, d in decisions.items()},
            "subdomains": [{"index": n} | row for n, row in enumerate(by_subdomain)],
            "missing": degraded,
        },
    }


def _stage(stage: StageTimer) -> dict[str, Any]:
    return {
        "name": stage.name,
        "seconds": stage.seconds,
        "critical_path_seconds": stage.critical_path_seconds,
        "peak_memory_bytes": stage.peak_memory_bytes,
    }

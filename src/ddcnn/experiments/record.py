"""A run as it is written: progress to ``metrics.jsonl``, results and provenance to files."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeGuard

import torch

from ddcnn.config import MOST_THREADS, Config
from ddcnn.data.description import InputDescription
from ddcnn.data.source_paths import read_by
from ddcnn.errors import RunError
from ddcnn.experiments.decisions import decided
from ddcnn.experiments.mistakes import confident_mistakes, shown_strategy
from ddcnn.experiments.results import comparison_of
from ddcnn.machine import processor
from ddcnn.planning import Setup
from ddcnn.runs.folder import BEGUN, MISTAKES, RunFolder, versions
from ddcnn.runs.learned import content_to_keep
from ddcnn.runs.networks import describe_data, save_networks
from ddcnn.runs.run_validation import code_digests
from ddcnn.strategies import StrategyResult
from ddcnn.training import Progress, StageTimer

_EXAMPLES = 8
_MOST_SEEN = 2**26  # pixels, times subdomains, of which it is written who sees them
FORMAT = 2  # of checkpoints/run.json, and of what its fingerprint is made from


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
    """Writes every epoch to the run."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def epoch(self, row: dict[str, Any]) -> None:
        """Write it."""
        self.folder.add_metrics(row)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write them."""
        for row in rows:
            self.folder.add_metrics(row)


@dataclass(frozen=True)
class Begun:
    """What a run knew when it was begun: the choices that were made for it, and what was proved of its networks.

    ``found`` is what `began_with` returned then; ``threads`` is the number of threads that was decided on; None: the
    usual one.
    """

    folder: RunFolder
    found: Mapping[str, Any]
    choices: dict[str, str]
    proofs: tuple[str, ...]
    command: str
    threads: int | None = None

    def check(self, setup: Setup) -> None:
        """Make sure that the run goes on as it was begun.

        Raises
        ------
        RunError
            It is of other data, or of another configuration.
        """
        _check_same(self.folder, self.found, setup)


def open_run(
    folder: RunFolder, setup: Setup, *, job: str, command: str, choices: dict[str, str], threads: int | None = None
) -> None:
    """Make the folder of a run, and write what is known before the training."""
    folder.create(force=setup.config.force, sources=read_by(setup.config))
    begun = began_with(setup, job) | {
        "choices": choices,
        "proofs": setup.networks.proofs.certificates(),
        "threads": threads,
    }
    folder.write_json(BEGUN, begun)
    folder.write_text("config.yaml", setup.config.to_yaml())
    write_facts(folder, setup, command)


def write_facts(folder: RunFolder, setup: Setup, command: str) -> None:
    """Write what is known before the training.

    A run that goes on writes it again, as it is known now: so what is sealed in the end is what it was trained on, even
    if a file was damaged in between. Only the environment is that of the beginning.
    """
    data, weights = setup.data, setup.config.init.weights
    facts: dict[str, Callable[[str], None]] = {
        "environment.json": lambda name: folder.write_json(
            name, environment(setup.compute.device, command) | {"code": code_digests(setup.config)}
        ),
        "data.json": lambda name: folder.write_json(name, describe_data(data, setup.config.data)),
        "split.json": lambda name: folder.write_text(name, data.split.to_json()),
        "content.safetensors": lambda name: folder.write_tensors(
            name, content_to_keep(data.content, data.split, weights)
        ),
    }
    if bad := data.dataset.bad_files:
        files = [{"file": one.file, "reason": one.reason} for one in bad]
        left_out = {"on_bad_file": setup.config.data.on_bad_file, "files": files}
        facts["bad_files.json"] = lambda name: folder.write_json(name, left_out)
    for name, write in facts.items():
        if name != "environment.json" or not folder.has(name):
            write(name)


def reopen_run(folder: RunFolder, *, sweep: bool) -> Begun:
    """Open the folder of a run that did not finish.

    Parameters
    ----------
    sweep
        Remove what a killed process left half-written.

    Raises
    ------
    RunError
        It was begun by a version whose checkpoints mean something else.
    """
    begun = _read_begun(folder)
    if sweep:
        folder.hold()
        folder.sweep()
    told = folder.read_json("environment.json") if folder.has("environment.json") else {}
    command = str(told.get("command", ""))
    choices, proofs, threads = begun.get("choices"), begun.get("proofs"), begun.get("threads")
    if not isinstance(choices, dict) or not _are_texts([*choices.values()]) or not _are_texts(proofs):
        raise _damaged(folder)
    return Begun(
        folder,
        begun,
        choices,
        tuple(proofs),
        command,
        threads if type(threads) is int and 0 < threads <= MOST_THREADS else None,
    )


def began_with(setup: Setup, job: str) -> dict[str, Any]:
    """Return what has to be the same when a run goes on: the data, the names of the classes, the configuration."""
    classes = list(setup.data.dataset.classes)
    return {"format": FORMAT, "job": job, "fingerprint": setup.fingerprint, "classes": classes}


def check_begun(folder: RunFolder, setup: Setup) -> None:
    """Make sure that a comparison over folds, which was begun, goes on as it was begun.

    Raises
    ------
    RunError
        As of `reopen_run` and `Begun.check`.
    """
    _check_same(folder, _read_begun(folder), setup)


def _read_begun(folder: RunFolder) -> dict[str, Any]:
    begun = folder.read_json(BEGUN)
    if begun.get("format") != FORMAT or "fingerprint" not in begun:
        raise RunError(
            f"{folder.path} was begun by another version of ddcnn, whose checkpoints this one does not read; finish it "
            "with that version, or start anew with another --out"
        )
    classes = begun.get("classes")  # older runs do not say them
    if begun.get("job") not in ("compare", "train") or not (classes is None or _are_texts(classes)):
        raise _damaged(folder)
    return begun


def _are_texts(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _damaged(folder: RunFolder) -> RunError:
    return RunError(f"{folder.path / BEGUN} is damaged; copy the run anew, or start anew with another --out")


def _check_same(folder: RunFolder, begun: Mapping[str, Any], setup: Setup) -> None:
    if begun["fingerprint"] != setup.fingerprint:
        raise RunError(
            f"{folder.path} began with other data or another configuration than there are now; put them back, or start "
            "anew with another --out"
        )
    now = [*setup.data.dataset.classes]
    for before, name in zip_longest(begun.get("classes") or now, now):
        if before != name:
            raise RunError(
                f"{folder.path} began with a class {before!r}, which is called {name!r} now; rename it back, or start "
                "anew with another --out"
            )


def job_of(folder: RunFolder) -> str:
    """Return what a run that was begun does: ``"compare"`` or ``"train"``.

    Raises
    ------
    RunError
        As of `reopen_run`.
    """
    job: str = _read_begun(folder)["job"]
    return job


def is_begun(folder: RunFolder) -> bool:
    """Tell whether there is a run that was begun, complete or not."""
    return (folder.path / BEGUN).is_file() and (folder.path / "config.yaml").is_file()


def reopened(folder: RunFolder, compute: Mapping[str, Any], directory: Path | None = None) -> Config:
    """Return the configuration of a run that was begun, with other values of ``compute``, and data found elsewhere.

    Raises
    ------
    RunError
        The folder is no such run.
    """
    if not is_begun(folder):
        raise RunError(f"{folder.path} is no run that was begun; start it with ddcnn compare or ddcnn train --out")
    overrides: dict[str, Any] = {"out": str(folder.path), "force": False, "compute": dict(compute)}
    if directory is not None:
        overrides["data"] = {"directory": str(directory)}
    return Config.read(folder.path / "config.yaml", overrides)


def read_results(folder: RunFolder) -> Comparison:
    """Return what a complete run found; its checkpoints are of no more use."""
    folder.clean()
    return Comparison(folder.read_json("comparison.json"), folder.path, {})


def finish_run(
    folder: RunFolder | None,
    setup: Setup,
    results: dict[str, StrategyResult],
    *,
    trained: str | None,
    stages: list[StageTimer],
    choices: dict[str, str],
    command: str,
) -> Comparison:
    """Evaluate what was trained, the test part for the first time, write everything, and seal the run.

    Without a folder nothing is written: of several ranks one writes.
    """
    assert setup.config.out is not None
    described = InputDescription.of(setup.data.dataset, setup.config.data)
    for result in results.values():
        result.network.describe(described)
    found = comparison_of(setup, results)
    found["details"] |= {
        "command": command,
        "stages": [_stage(stage) for stage in stages],
        "choices": choices,
        "versions": environment(setup.compute.device, command)["versions"],
    }
    found |= {"run": str(setup.config.out)} | ({} if trained is None else {"trained": trained})
    members = {name: result.network.local_cnns.members for name, result in results.items()}
    shown = shown_strategy(found["strategies"], members, trained)
    mistakes = confident_mistakes(setup, results[shown], votes=bool(found["subdomains"]))
    found["details"]["mistakes"] = shown if mistakes else None
    if folder is not None:
        save_networks(folder, results)
        _write_examples(folder, setup)
        if mistakes:
            folder.write_tensors(MISTAKES, mistakes)
        folder.write_tensors("decisions.safetensors", decided(setup, results))
        folder.write_json("comparison.json", found)
        folder.seal()
        folder.clean()
    return Comparison(found, setup.config.out, {name: result.network for name, result in results.items()})


def _write_examples(folder: RunFolder, setup: Setup) -> None:
    """Write a few test images, for drawings."""
    dataset, test = setup.data.dataset, setup.data.split.test
    test = test if len(test) else setup.data.split.validation
    chosen = test[torch.linspace(0, len(test) - 1, min(_EXAMPLES, len(test))).long()]  # files are often sorted by class
    examples = {"images": dataset.images[chosen], "labels": dataset.labels[chosen]}
    if dataset.annotation is not None:
        examples["annotation"] = torch.stack([dataset.annotation(int(i)) for i in chosen]).to(torch.uint8)
    subdomains = setup.networks.subdomains
    if not setup.networks.decomposition.layout and len(subdomains) * math.prod(dataset.image_size) <= _MOST_SEEN:
        examples["footprints"] = torch.stack([s.seen() for s in subdomains]).to(torch.uint8)
    for s in subdomains:
        if s.shape != tuple(stop - start for start, stop in s.box):
            examples[f"subimages.{s.index}"] = s.cut(examples["images"]).contiguous()
    folder.write_tensors("examples.safetensors", examples)


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


def _stage(stage: StageTimer) -> dict[str, Any]:
    return {
        "name": stage.name,
        "seconds": stage.seconds,
        "critical_path_seconds": stage.critical_path_seconds,
        "peak_memory_bytes": stage.peak_memory_bytes,
    }

"""`Cell`: one run of an experiment, and what is kept of it: one line of JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddcnn.config import Config
from ddcnn.errors import RunError
from ddcnn.experiments.compare import compare, resume, train
from ddcnn.experiments.questions import Experiment, Variant
from ddcnn.experiments.questions.question import nothing_more
from ddcnn.experiments.questions.trajectories import trajectory
from ddcnn.experiments.record import is_begun
from ddcnn.runs.folder import BEGUN, RunFolder
from ddcnn.runs.run_validation import read_config
from ddcnn.training import Progress

_KEPT = ("test_accuracy", "validation_accuracy", "test_auc", "test_f1", "parameters", "epochs", "seconds")
_FREE = {"out", "force"}  # may differ between what was begun and what is asked for now
_FREE_OF = {"compute": {"engine", "workers", "threads", "ray_address", "retries"}, "data": {"directory", "offline"}}

Examined = Mapping[str, Mapping[str, float]]  # per arm, what was measured of its network


@dataclass(frozen=True)
class Cell:
    """A variant with a seed, or on a fold.

    Attributes
    ----------
    experiment, variant
        What it belongs to.
    unit
        ``"seed"`` or ``"fold"``.
    number
        Which.
    config
        Complete; ``out`` is its folder.
    """

    experiment: str
    variant: Variant
    unit: str
    number: int
    config: Config

    @property
    def name(self) -> str:
        """Of its folder: ``compare-s0``."""
        return name_of(self.variant, self.unit, self.number)

    @property
    def folder(self) -> RunFolder:
        """The folder of its run."""
        assert self.config.out is not None
        return RunFolder(self.config.out)

    def check(self) -> None:
        """Make sure that what lies in its folder, if anything, is this cell.

        Raises
        ------
        RunError
            It was begun with another configuration.
        """
        folder = self.folder
        if not (folder.is_complete() or is_begun(folder)):
            return
        difference = _difference(self.config.model_dump(mode="json"), read_config(folder).model_dump(mode="json"))
        if difference:
            raise RunError(
                f"{folder.path} was begun with {difference}; ask for the same, or begin anew with another --out"
            )

    def check_images(self, content: Tensor) -> None:
        """Make sure that its run, if it is complete, has seen the images that there are now: cells are compared.

        Parameters
        ----------
        content
            Their digests, as of `ddcnn.data.content.content_of`.

        Raises
        ------
        RunError
            Images or labels were changed, added or removed in between.
        """
        folder = self.folder
        if not folder.is_complete() or not folder.has("content.safetensors"):
            return
        seen = folder.read_tensors("content.safetensors").get("digests", content[:0])
        if not torch.equal(seen, content):
            raise RunError(
                f"{self.config.data.source} is not what {folder.path} was trained on: images or labels were changed, "
                "added or removed since, so cells cannot be compared; put them back, or begin anew with another --out"
            )


def run_cell(found: Experiment, cell: Cell, progress: Progress, command: str) -> dict[str, Any]:
    """Do the run of a cell, go on with it, or read it if it is complete; return what is kept of it."""
    cell.check()
    folder, config = cell.folder, cell.config
    if folder.is_complete() or is_begun(folder):
        compute = config.compute.model_dump(include=_FREE_OF["compute"] - {"threads"})
        resume(
            folder.path,
            progress=progress,
            command=command,
            compute=compute,
            directory=config.data.directory,
            trust=True,  # `check` has seen that it names no other code than this configuration does
        )
    else:
        folder.sweep()
        begun = (folder.path / BEGUN).is_file()  # and killed before there was more
        job = compare if cell.variant.job == "compare" else train
        job(config.model_copy(update={"force": begun}), progress=progress, command=command)
    return record_of(found, cell)


def record_of(found: Experiment, cell: Cell, examined: Examined | None = None) -> dict[str, Any]:
    """Return the line of a cell whose run is complete: where it is, what it found, how it was made.

    Parameters
    ----------
    examined
        Per arm, what was measured of its network before; None: it is measured now.

    Raises
    ------
    RunError
        The run is damaged.
    """
    with naming_cell(cell.folder):
        return _record_of(found, cell, examined)


@contextmanager
def naming_cell(run: RunFolder) -> Iterator[None]:
    """Within it, an error of the run of a cell says what to do about it in an experiment."""
    try:
        yield
    except RunError as error:
        raise RunError(f"{error}; or remove {run.path}, and the same command trains this cell anew") from None


def reread(found: Experiment, cell: Cell, line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the line of a complete cell, read from its run; what takes long to measure is that of its earlier line.

    None: the earlier line does not say it.
    """
    if found.examine is nothing_more:
        return record_of(found, cell, {})
    arms = line.get("arms")
    with naming_cell(cell.folder):
        results = cell.folder.read_json("comparison.json")
    if not isinstance(arms, Mapping):
        return None
    examined = {}
    for name, label in cell.variant.arms.items():
        if _has(results, name):
            measures = arms[label].get("measures") if isinstance(arms.get(label), Mapping) else None
            if not isinstance(measures, Mapping) or not all(map(_is_number, measures.values())):
                return None
            examined[label] = {key: measures[key] for key in measures.keys() - found.measures(results, name).keys()}
            if not examined[label]:
                return None
    return record_of(found, cell, examined)


def agrees(line: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Tell whether a line says what a run does; the configuration of an earlier version knew fewer fields."""
    said, found = ({key: value for key, value in one.items() if key != "config"} for one in (line, record))
    return said == found and _within(line.get("config"), record["config"])


def _within(said: object, found: object) -> bool:
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        return all(key in found and _within(value, found[key]) for key, value in said.items())
    return said == found


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _record_of(found: Experiment, cell: Cell, examined: Examined | None) -> dict[str, Any]:
    folder = RunFolder(cell.folder.path)
    results = folder.read_json("comparison.json")
    rows = [json.loads(line) for line in folder.read_text("metrics.jsonl").splitlines()]
    environment = folder.read_json("environment.json")
    return {
        "experiment": cell.experiment,
        "cell": cell.name,
        "variant": cell.variant.name,
        cell.unit: cell.number,
        "arms": {
            label: _arm(results, rows, name)
            | {
                "measures": {
                    **found.measures(results, name),
                    **(found.examine(folder.path, name) if examined is None else examined.get(label, {})),
                }
            }
            for name, label in cell.variant.arms.items()
            if _has(results, name)
        },
        "samples": results["details"]["samples"],
        "tested": hashlib.sha256(json.dumps(folder.read_json("split.json")["test"]).encode()).hexdigest()[:16],
        "choices": results["details"]["choices"],
        "versions": results["details"]["versions"],
        "machine": {key: environment.get(key) for key in ("processor", "cores", "threads", "device", "system")},
        "config": read_config(folder).model_dump(mode="json", exclude={"out", "force"}),
    }


def _has(results: Mapping[str, Any], name: str) -> bool:
    return any(row["name"] == name for row in results["strategies"])


def _arm(results: Mapping[str, Any], rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    row = next(row for row in results["strategies"] if row["name"] == name)
    return {
        "result": name,
        **{key: row.get(key) for key in _KEPT},
        "critical_path_seconds": row.get("critical_path_seconds"),
        "trajectory": [[round(value, 6) for value in point] for point in trajectory(results, rows, name)],
    }


def _difference(wanted: Mapping[str, Any], begun: Mapping[str, Any], section: str = "") -> str:
    """Return the first field that differs, in words; what was left to be found out may be anything."""
    free = _FREE if not section else _FREE_OF.get(section.rstrip("."), set())
    for name, value in wanted.items():
        other = begun.get(name)
        if name in free or value == "auto" or (value is None and section == "compute."):
            continue
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if difference := _difference(value, other, f"{section}{name}."):
                return difference
        elif value != other:
            return f"{section}{name} = {other}, not {value}"
    return ""


def folder_of(out: Path, variant: Variant, unit: str, number: int) -> Path:
    """Return the folder of a cell's run."""
    return out / "cells" / name_of(variant, unit, number)


def name_of(variant: Variant, unit: str, number: int) -> str:
    """Return the name of a cell, such as ``transfer-s0``."""
    return f"{variant.name}-{unit[0]}{number}"

"""Read the files of a run folder, and check them: the one door of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.errors import RunError
from ddcnn.report.mistakes import read_mistakes
from ddcnn.report.results import Results, Row, parse
from ddcnn.runs.folder import RunFolder

_MOST_POINTS = 10**8  # of training curves
_MOST_DRAWN = 2**30  # bytes of examples: more is not worth the memory of a drawing


@dataclass(frozen=True)
class RunContent:
    """The content of a run folder.

    Attributes
    ----------
    results
        `comparison.json`.
    rows
        `metrics.jsonl`, one row per epoch and stage.
    config
        `config.yaml`, as text.
    environment
        `environment.json`.
    images, labels
        `examples.safetensors`: (m, C, *S) uint8 or finite float32, and (m,) int64; None without that file.
    footprints
        Of the same file, (N, *S): not zero where a subdomain sees an image; None where that is its place in the grid.
    subimages
        Of the same file, (m, C, *s) by index: what those subdomains see that do not just see their box.
    annotation
        Of the same file, (m, *S): not zero where an image shows what makes its class; None where that is not known.
    mistakes
        `mistakes.safetensors`: see `ddcnn.experiments.mistakes`; empty without that file.
    """

    results: Results
    rows: tuple[Row, ...]
    config: str
    environment: dict[str, Any]
    images: np.ndarray | None
    labels: np.ndarray | None
    annotation: np.ndarray | None = None
    footprints: np.ndarray | None = None
    subimages: Mapping[int, np.ndarray] = field(default_factory=dict)
    mistakes: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_run(run_dir: Path | str) -> RunContent:
    """Read a run folder.

    Without `examples.safetensors` the report leaves out the drawing; every other file is needed.

    Raises
    ------
    RunError
        One line that names the file that is missing or damaged, and how.
    """
    folder = RunFolder(run_dir)
    if not folder.path.is_dir():
        raise RunError(f"{run_dir} is not a run folder; give the folder that `ddcnn compare` or `ddcnn train` wrote")
    results = Results.parse(folder.read_json("comparison.json"), str(folder.path / "comparison.json"))
    rows = _rows(folder)
    config = folder.read_text("config.yaml")
    environment = folder.read_json("environment.json")
    mistakes = read_mistakes(folder, len(results.subdomains)) if results.details.mistakes else {}
    examples = _examples(folder, [s.index for s in results.subdomains])
    return RunContent(results, rows, config, environment, mistakes=mistakes, **examples)


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{source} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{source} should hold a JSON object, got {type(values).__name__}")
    return values


def _rows(folder: RunFolder) -> tuple[Row, ...]:
    path = folder.path / "metrics.jsonl"
    lines = enumerate(folder.read_text("metrics.jsonl").splitlines(), start=1)
    sources = ((line, f"{path} line {number}") for number, line in lines if line.strip())
    rows = tuple(parse(Row, _mapping(line, source), source) for line, source in sources)
    last = max((row.epoch for row in rows), default=0)
    widest = max((len(values) for row in rows for values in (row.train_accuracy, row.validation_accuracy)), default=0)
    if last > len(rows) or len(rows) * widest > _MOST_POINTS:
        raise RunError(
            f"{path} should have a row for each epoch, and at most {_MOST_POINTS:,} values in all, got {len(rows):,} "
            f"rows of up to {widest:,} values and an epoch {last:,}"
        )
    return rows


def _examples(folder: RunFolder, indices: Sequence[int]) -> dict[str, Any]:
    name = "examples.safetensors"
    path = folder.path / name
    if not folder.has(name) or path.stat().st_size > _MOST_DRAWN:
        return {"images": None, "labels": None}
    tensors = folder.read_arrays(name)
    if not {"images", "labels"} <= tensors.keys():
        raise RunError(f"{path} should hold images and labels, got {', '.join(sorted(tensors)) or 'nothing'}")
    images, labels = tensors["images"], tensors["labels"]
    if images.ndim not in (4, 5) or labels.shape != images.shape[:1]:
        raise RunError(
            f"{path} should hold images (m, C, *S) and labels (m,), got shapes {images.shape} and {labels.shape}"
        )
    annotation = tensors.get("annotation")
    if annotation is not None and annotation.shape != (len(images), *images.shape[2:]):
        raise RunError(f"{path} should hold an annotation (m, *S) of its images, got shape {annotation.shape}")
    footprints = tensors.get("footprints") if indices else None
    if footprints is not None and footprints.shape != (len(indices), *images.shape[2:]):
        raise RunError(f"{path} should hold footprints (N, *S) of its subdomains, got shape {footprints.shape}")
    subimages = {n: np.nan_to_num(tensors[name]) for n in indices if (name := f"subimages.{n}") in tensors}
    for n, seen in subimages.items():
        if seen.ndim != images.ndim or seen.shape[:2] != images.shape[:2] or 0 in seen.shape:
            raise RunError(f"{path} should hold subimages (m, C, *s) of subdomain {n}, got shape {seen.shape}")
    return {
        "images": np.nan_to_num(images),
        "labels": labels,
        "annotation": annotation,
        "footprints": footprints,
        "subimages": subimages,
    }

"""Read the files of a run folder, and check them: the one door of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ddcnn.errors import RunError
from ddcnn.report.results import Results, Row, parse


@dataclass(frozen=True)
class RunFiles:
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
    annotation
        Of the same file, (m, *S): not zero where an image shows what makes its class; None where that is not known.
    """

    results: Results
    rows: tuple[Row, ...]
    config: str
    environment: dict[str, Any]
    images: np.ndarray | None
    labels: np.ndarray | None
    annotation: np.ndarray | None = None


def read_run(run_dir: Path | str) -> RunFiles:
    """Read a run folder.

    Without `examples.safetensors` the report leaves out the drawing; every other file is needed.

    Raises
    ------
    RunError
        One line that names the file that is missing or damaged, and how.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run folder; give the folder that `ddcnn compare` or `ddcnn train` wrote")
    results = Results.parse(_json(folder / "comparison.json"), str(folder / "comparison.json"))
    rows = _rows(folder / "metrics.jsonl")
    config = _text(folder / "config.yaml")
    environment = _json(folder / "environment.json")
    examples = _examples(folder / "examples.safetensors")
    return RunFiles(results, rows, config, environment, *examples)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} is missing; the run is not complete") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: not UTF-8 at byte {error.start}") from None


def _json(path: Path) -> dict[str, Any]:
    return _mapping(_text(path), str(path))


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{source} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{source} should hold a JSON object, got {type(values).__name__}")
    return values


def _rows(path: Path) -> tuple[Row, ...]:
    lines = enumerate(_text(path).splitlines(), start=1)
    sources = ((line, f"{path} line {number}") for number, line in lines if line.strip())
    return tuple(parse(Row, _mapping(line, source), source) for line, source in sources)


def _examples(path: Path) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if not path.exists():
        return None, None, None
    try:
        tensors = load(_bytes(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged: {' '.join(str(error).split())}") from None
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
    return np.nan_to_num(images), labels, annotation

"""A comparison over the folds of repeated stratified cross-validation: each strategy's mean, and how sure it is.

The folds share training samples, so their results are not independent and a plain t-interval is far too narrow. The
variance is corrected for that: C. Nadeau, Y. Bengio, Inference for the generalization error, Machine Learning 52
(2003) 239-281; for repeated folds: R. Bouckaert, E. Frank, PAKDD 2004.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.config import Config
from ddcnn.data import Dataset, make_split
from ddcnn.data.source_paths import read_by, source_folder
from ddcnn.experiments.missing import mean_of_folds
from ddcnn.experiments.record import Comparison, began_with, check_begun
from ddcnn.experiments.statistics import spread
from ddcnn.planning import open_images, prepare
from ddcnn.runs.folder import BEGUN, RunFolder
from ddcnn.training import Progress, class_figures
from ddcnn.training.metrics import pooled_bins

_WHERE = ("engine", "workers", "threads", "ray_address", "retries")  # may differ where a run goes on
_JUDGED = ("test_accuracy", "test_auc", "test_f1")


def over_folds(
    config: Config,
    compare_one: Callable[[Config, Dataset], Comparison],
    progress: Progress,
    dataset: Dataset | None = None,
    *,
    resuming: bool = False,
) -> Comparison:
    """Compare on every fold, and write one result beside them.

    The run's folder holds a complete run per fold in ``folds/0``, ``folds/1``, ..., and a ``comparison.json`` whose
    figures are means over the folds, with ``"intervals"`` (95 %) and the figures of all ``"folds"`` per strategy.
    ``auto`` choices are made on the first fold and hold for all, but for the number of threads. Engine
    and workers are those that are asked for now, which the first fold need not have been trained with.
    """
    assert config.out is not None
    assert config.data.folds is not None
    folder = RunFolder(config.out)
    if resuming:
        folder.hold()
    else:
        folder.check_free(force=config.force, sources=read_by(config), images=source_folder(config.data))
    dataset = dataset or open_images(config)
    configs = [_of_fold(config, fold) for fold in range(math.prod(config.data.folds))]
    for one in configs:
        make_split(dataset, one.data, one.seed)
    setup = prepare(configs[0], dataset)  # whatever cannot be used is found before anything is removed or written
    if resuming:
        check_begun(folder, setup)
    else:
        folder.create(force=config.force, sources=read_by(config))
        folder.write_json(BEGUN, began_with(setup, "compare"))
        folder.write_text("config.yaml", config.to_yaml())
    results: list[dict[str, Any]] = []
    for fold, one in enumerate(configs):
        progress.note(f"fold {fold + 1} of {len(configs)}")
        decided = {"compute": config.compute, "training": config.training}
        comparison = compare_one(one.model_copy(update=decided), dataset)
        first = Config.read(comparison.run / "config.yaml")
        asked = {name: getattr(config.compute, name) for name in _WHERE}
        compute = first.compute.model_copy(update=asked)
        config = config.model_copy(update={"compute": compute, "training": first.training})
        results.append(comparison.results)
    return _written(folder, config, results)


def combined(results: Sequence[Mapping[str, Any]], folds: Sequence[int]) -> dict[str, Any]:
    """Return one result from those of all folds.

    Parameters
    ----------
    results
        As in the ``comparison.json`` of each fold.
    folds
        Number of folds, and of repeats.
    """
    first = results[0]
    rows = [_strategy([_named(one, row["name"]) for one in results], results) for row in first["strategies"]]
    details = dict(first["details"])
    details["folds"] = list(folds)
    tested = [one["details"]["samples"]["test"] for one in results]
    details["samples"] = {"test": sum(tested[: folds[0]])}
    details["confusion"] = {
        row["name"]: np.sum([one["details"]["confusion"][row["name"]] for one in results], axis=0).tolist()
        for row in rows
    }
    details["stages"] = [_mean([one["details"]["stages"][i] for one in results]) for i in range(len(details["stages"]))]
    details["subdomains"] = [
        _mean([one["details"]["subdomains"][n] for one in results]) for n in range(len(details["subdomains"]))
    ]
    details["class_figures"] = {name: class_figures(counts) for name, counts in details["confusion"].items()}
    details["reliability"] = {
        row["name"]: pooled_bins([one["details"].get("reliability", {}).get(row["name"], []) for one in results])
        for row in rows
    }
    details["mistakes"] = None  # each fold keeps its own
    details["missing"] = mean_of_folds([one["details"].get("missing", {}) for one in results])
    subdomains = [_mean([_present(one["subdomains"][n]) for one in results]) for n in range(len(first["subdomains"]))]
    return {**first, "strategies": rows, "subdomains": subdomains, "details": details}


def interval(values: Sequence[float], test_share: float) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over folds, clipped to 0..1; None for a single fold.

    Parameters
    ----------
    values
        One figure per fold.
    test_share
        n_test / n_train: the correction of Nadeau and Bengio, as `ddcnn.experiments.statistics.spread` has it.

    Examples
    --------
    >>> low, high = interval([0.7, 0.8, 0.9], 0.5)
    >>> round(low, 4), round(high, 4)
    (0.4072, 1.0)
    """
    found = spread(values, test_share).interval
    return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))


def _strategy(rows: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shares = [one["details"]["samples"]["test"] / one["details"]["samples"]["train"] for one in results]
    row = _mean(rows)
    row["peak_memory_bytes"] = max((r["peak_memory_bytes"] for r in rows if r["peak_memory_bytes"]), default=None)
    row["folds"] = {name: [r[name] for r in rows] for name in _JUDGED}
    row["intervals"] = {}
    row.pop("thresholds", None)  # each fold has its own
    for name, values in row["folds"].items():
        if None in values:
            row[name] = None  # a mean over other folds than those of another strategy would mislead
        else:
            row["intervals"][name] = interval(values, float(np.mean(shares)))
    return row


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each number; of what is no number, the first."""
    first = dict(rows[0])
    for name in first:
        values = [row[name] for row in rows if row[name] is not None]
        if values and all(isinstance(value, int | float) for value in values) and name != "index":
            mean = float(np.mean(values))
            first[name] = values[0] if len(set(values)) == 1 else mean
        elif name == "class_accuracy":
            columns = zip(*(row[name] for row in rows), strict=True)
            known = [[v for v in column if v is not None] for column in columns]
            first[name] = [float(np.mean(column)) if column else None for column in known]
    return first


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out that a local CNN is missing: in another fold it may be there."""
    return {name: value for name, value in row.items() if name != "missing"}


def _named(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in results["strategies"] if row["name"] == name)
    return found


def _of_fold(config: Config, fold: int) -> Config:
    assert config.out is not None
    data = config.data.model_copy(update={"fold": fold})
    return config.model_copy(update={"data": data, "out": config.out / "folds" / str(fold), "force": False})


def _written(folder: RunFolder, config: Config, results: list[dict[str, Any]]) -> Comparison:
    assert config.data.folds is not None
    together = combined(results, [*config.data.folds, 1][:2]) | {"run": str(folder.path)}
    first = folder.path / "folds" / "0"
    folder.write_text("config.yaml", config.to_yaml())
    for name in ("environment.json", "data.json", "bad_files.json"):
        if (first / name).is_file():
            folder.write_text(name, (first / name).read_text(encoding="utf-8"))
    folder.write_tensors("examples.safetensors", RunFolder(first).read_tensors("examples.safetensors"))
    rows = [
        json.dumps(row | {"stage": f"{row['stage']}/fold{fold}"})
        for fold in range(len(results))
        for row in _rows(folder.path / "folds" / str(fold) / "metrics.jsonl")
    ]
    folder.write_text("metrics.jsonl", "\n".join(rows) + "\n")
    folder.write_json("comparison.json", together)
    folder.seal()
    folder.clean()
    return Comparison(together, folder.path, {})


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

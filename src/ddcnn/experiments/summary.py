"""What all cells of an experiment say together: the content of ``summary.json``, which the page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ddcnn.experiments.cells import naming_cell
from ddcnn.experiments.questions import Curve, Experiment, Findings, Pair, Table
from ddcnn.experiments.questions.question import ACCURACY, Arms
from ddcnn.experiments.statistics import MARGIN, holm, mcnemar, over_images, paired, spread
from ddcnn.runs.folder import RunFolder

_LEVEL = 0.05
_DECISIONS = "decisions.safetensors"


def summarise(
    found: Experiment, name: str, records: Sequence[Mapping[str, Any]], cells: Path, command: str
) -> dict[str, Any]:
    """Return arms, pairs, further tables and curves.

    Parameters
    ----------
    records
        Lines of ``cells.jsonl``, in the order of the cells.
    cells
        The folder of their runs, from which the decisions about test images are read.
    """
    unit = "fold" if "fold" in records[0] else "seed"
    share = _share(records)
    arms, units = _arms(records, unit), list(dict.fromkeys(record[unit] for record in records))
    more = found.more(Findings(arms, share, _configs(records)))
    told = found.chosen(arms)
    return {
        "experiment": name,
        "question": found.question,
        "command": command,
        "unit": unit,
        "share": share,
        "units": units,
        "margin": MARGIN,
        "about": _about(records),
        "arms": [_arm(label, rows, share, records[0]) for label, rows in told.items()],
        "pairs": _pairs(found.pairs, told, share, _Images(cells, units)),
        "tables": [asdict(one) for one in more if isinstance(one, Table) and one.rows],
        "curves": [asdict(one) for one in more if isinstance(one, Curve)],
        "versions": records[0]["versions"] | {package: version(package) for package in found.needs.values()},
        "machine": records[0]["machine"],
        "choices": records[0]["choices"],
        "differing": differing(records),
    }


def differing(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Return what the cells do not have in common of precision, device, processor and versions: value, then cells.

    They may have been done on several machines, or by an earlier version that chose the precision of each cell.
    """
    values: dict[str, dict[str, list[str]]] = {}
    for record in records:
        compute, machine = record["config"]["compute"], record["machine"]
        has = {"precision": compute["precision"], "device": compute["device"], "processor": machine.get("processor")}
        for what, value in {**has, **record["versions"]}.items():
            values.setdefault(what, {}).setdefault(str(value), []).append(record["cell"])
    return {what: cells for what, cells in values.items() if len(cells) > 1}


def _about(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    record = records[0]
    config = record["config"]
    return {
        "data": config["data"]["source"],
        "model": ", ".join(dict.fromkeys(record["config"]["model"]["name"] for record in records)),
        "grid": list(config["decomposition"]["grid"]) if config["decomposition"]["name"] == "grid" else [],
        "epochs": config["training"]["epochs"],
        "samples": record["samples"],
    }


def _share(records: Sequence[Mapping[str, Any]]) -> float:
    """Return test images per training image where units draw both from the same images, as of `spread`; else 0."""
    if len({record["tested"] for record in records}) == 1:
        return 0.0
    return float(np.mean([record["samples"]["test"] / record["samples"]["train"] for record in records]))


def _arms(records: Sequence[Mapping[str, Any]], unit: str) -> dict[str, list[dict[str, Any]]]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for label, row in record["arms"].items():
            arms.setdefault(label, []).append({"unit": record[unit], "cell": record["cell"]} | row)
    return arms


def _configs(records: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {label: record["config"] for record in reversed(records) for label in record["arms"]}


def _arm(label: str, rows: Sequence[Mapping[str, Any]], share: float, record: Mapping[str, Any]) -> dict[str, Any]:
    values = [row[ACCURACY] for row in rows]
    found = spread(values, share)
    interval = None if found.interval is None else [max(0.0, found.interval[0]), min(1.0, found.interval[1])]
    images = record["samples"]["test"]
    return {
        "name": label,
        "values": values,
        "n": found.n,
        "mean": found.mean,
        "sd": found.sd,
        "interval": interval,
        "images_sd": float(np.sqrt(found.mean * (1 - found.mean) / images)) if images else None,
        **{key: _mean(rows, key) for key in ("parameters", "epochs", "seconds", "critical_path_seconds")},
    }


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None


def _pairs(pairs: Sequence[Pair], arms: Arms, share: float, images: _Images) -> list[dict[str, Any]]:
    found = [_pair(pair, arms, share, images) for pair in pairs if pair.arm in arms and pair.other in arms]
    known = [row for row in found if row is not None]
    for name, source in (("holm_p", "t_p"), ("equivalence_holm_p", "equivalence_p")):
        for row, p in zip(known, holm([row[source] for row in known]), strict=True):
            row[name] = p
    for row in known:
        row["verdict"] = verdict(row)
    return known


def _pair(pair: Pair, arms: Arms, share: float, images: _Images) -> dict[str, Any] | None:
    first, second = ({row["unit"]: row for row in arms[name]} for name in (pair.arm, pair.other))
    both = [(first[unit], second[unit]) for unit in first if unit in second]
    values = [(_value(a, pair.measure), _value(b, pair.measure)) for a, b in both]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    if not known:
        return None
    result = paired([a for a, _ in known], [b for _, b in known], share)
    return {
        "arm": pair.arm,
        "other": pair.other,
        "measure": pair.measure,
        **asdict(result.difference),
        "t_p": result.t_p,
        "wilcoxon_p": result.wilcoxon_p,
        "equivalence_p": result.equivalence_p,
        "seeds_needed": result.seeds_needed,
        **(images.say(both) if pair.measure == ACCURACY else {"images_interval": None, "mcnemar_p": []}),
    }


def _value(row: Mapping[str, Any], measure: str) -> float | None:
    value: float | None = row[ACCURACY] if measure == ACCURACY else row["measures"].get(measure)
    return value


def verdict(row: Mapping[str, Any]) -> str:
    """Return what the tests say of a pair, in words.

    >>> verdict({"holm_p": 0.3, "equivalence_holm_p": 0.01, "mean": 0.001, "margin": 0.005})
    'no difference'
    """
    differs = row["holm_p"] is not None and row["holm_p"] < _LEVEL
    same = row["equivalence_holm_p"] is not None and row["equivalence_holm_p"] < _LEVEL
    if differs:
        return ("higher" if row["mean"] > 0 else "lower") + (", but within the margin" if same else "")
    return "no difference" if same else "undecided"


class _Images:
    """The decisions of all runs about their test images, read once.

    Parameters
    ----------
    units
        The seeds or folds of the experiment; a pair may have some of them only.
    """

    def __init__(self, cells: Path, units: Sequence[int]) -> None:
        self._cells, self._units = cells, units
        self._known: dict[str, tuple[dict[str, np.ndarray], list[int]] | None] = {}

    def say(self, both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
        """Return the interval over test images, and McNemar's p-value of each unit of the experiment, or None.

        Nothing where a run does not tell.
        """
        nothing: dict[str, Any] = {"images_interval": None, "mcnemar_p": []}
        differences, tests = [], []
        p: dict[int, float] = {}
        for a, b in both:
            first, second = self._read(a["cell"]), self._read(b["cell"])
            if first is None or second is None or first[1] != second[1]:
                return nothing
            right = [found[0][row["result"]] == found[0]["labels"] for found, row in ((first, a), (second, b))]
            p[a["unit"]] = mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
            differences.append(right[0].astype(int) - right[1].astype(int))
            tests.append(first[1])
        return {
            "images_interval": list(over_images(differences, tests)),
            "mcnemar_p": [p.get(unit) for unit in self._units],
        }

    def _read(self, cell: str) -> tuple[dict[str, np.ndarray], list[int]] | None:
        """Return decisions and labels, by result, and which samples they are about."""
        if cell not in self._known:
            folder = RunFolder(self._cells / cell)
            with naming_cell(folder):
                self._known[cell] = (
                    (folder.read_arrays(_DECISIONS), folder.read_json("split.json")["test"])
                    if folder.has(_DECISIONS)
                    else None
                )
        return self._known[cell]

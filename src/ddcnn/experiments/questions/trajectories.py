"""When a strategy had reached which validation accuracy: read from the epochs of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddcnn.experiments.questions.question import Findings, Table

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995)
_FINAL_STAGE = {"cnn-dnn": "dnn"}  # of a result that is not called as its last stage of training


class TimedAccuracy(NamedTuple):
    """Validation accuracy after so many seconds: measured here, and if each subdomain had a worker of its own."""

    seconds: float
    critical_path_seconds: float
    accuracy: float


def trajectory(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> list[TimedAccuracy]:
    """Return a point per epoch of the last stage of a result, and one at its end; earlier stages count as time.

    Parameters
    ----------
    found
        Content of ``comparison.json``.
    rows
        Of ``metrics.jsonl``.
    name
        Of the result.
    """
    result = next(row for row in found["strategies"] if row["name"] == name)
    total, path = result.get("seconds"), result.get("critical_path_seconds")
    if total is None or path is None or result.get("validation_accuracy") is None:
        return []
    end = TimedAccuracy(total, path, result["validation_accuracy"])
    names = {row["stage"] for row in rows}
    last = next((last for last in (_FINAL_STAGE.get(name, name), f"dnn/{name}") if last in names), name)
    stage = next((stage for stage in found["details"]["stages"] if stage["name"] == last), None)
    epochs = {row["epoch"]: row for row in rows if row["stage"] == last}
    if stage is None or stage["critical_path_seconds"] is None or not epochs:
        return [end]
    before, path_before = total - stage["seconds"], path - stage["critical_path_seconds"]
    points = [
        TimedAccuracy(before + row["seconds"], path_before + row["seconds"], row["validation_accuracy"][0])
        for _, row in sorted(epochs.items())
        if row["validation_accuracy"][0] is not None
    ]
    return [*points, end]


def reached_by(points: Sequence[TimedAccuracy], seconds: float) -> float | None:
    """Return the best validation accuracy within a critical path; None: no decision was possible yet."""
    return max((point.accuracy for point in points if point.critical_path_seconds <= seconds), default=None)


def time_to(points: Sequence[TimedAccuracy], accuracy: float) -> TimedAccuracy | None:
    """Return when an accuracy was reached first; None: not in this training (a censored time).

    >>> time_to([TimedAccuracy(1.0, 1.0, 0.8), TimedAccuracy(2.0, 2.0, 0.9)], 0.85).seconds
    2.0
    """
    return next((point for point in points if point.accuracy >= accuracy), None)


def points_of(row: Mapping[str, Any]) -> list[TimedAccuracy]:
    """Return the trajectory in a row of an arm."""
    return [TimedAccuracy(*values) for values in row.get("trajectory", [])]


def at_equal_path(findings: Findings, arms: Sequence[str]) -> Table:
    """Return the validation accuracies that arms had reached when the others had ended."""
    paths = {arm: [points_of(row) for row in findings.arms.get(arm, ())] for arm in arms}
    paths = {arm: rows for arm, rows in paths.items() if rows and all(rows)}
    ends = {arm: [points[-1].critical_path_seconds for points in rows] for arm, rows in paths.items()}
    budgets: dict[float, str] = {}  # arms that end together, such as average and vote, share a column
    for arm in sorted(paths, key=lambda arm: max(ends[arm])):
        budgets.setdefault(max(ends[arm]), arm)
    rows = []
    for arm, trajectories in paths.items():
        cells = []
        for budget in budgets:
            values = [reached_by(points, budget) for points in trajectories]
            known = [value for value in values if value is not None]
            cells.append(f"{100 * float(np.mean(known)):.1f}" if len(known) == len(values) else "-")
        rows.append((arm, *cells))
    return Table(
        "At equal critical path",
        ("validation accuracy (%) after", *(f"{end:.1f} s ({arm})" for end, arm in budgets.items())),
        tuple(rows),
        "Best validation accuracy that a result had reached within the critical path of another, the longest of all "
        "seeds, mean over the seeds; "
        '"-": it could not decide yet. The critical path is the time if each subdomain had a worker like this machine: '
        "computed from measured steps. The learning rates fall over the whole training, so an accuracy in the middle "
        "of it is below that of a training planned to end there.",
    )


def times_to_accuracy(findings: Findings, *, parallel: bool) -> Table:
    """Return the median time until each level of validation accuracy, over the seeds.

    Parameters
    ----------
    parallel
        Whether each subdomain has a worker of its own (computed); else one machine (measured).
    """
    best = max(
        (point.accuracy for rows in findings.arms.values() for row in rows for point in points_of(row)), default=0
    )
    levels = [level for level in _LEVELS if level <= best][-6:]
    rows = []
    for arm, cells in findings.arms.items():
        trajectories = [points for row in cells if (points := points_of(row))]
        if trajectories:
            rows.append((arm, *(_median(trajectories, level, parallel=parallel) for level in levels)))
    how = (
        "If each subdomain had a worker like this machine to itself: computed from the measured time of single steps, "
        "without any time for communication. What trains one model (global CNN, coherent, second phase of transfer) "
        "has one worker."
        if parallel
        else "On this machine, measured, validation included."
    )
    return Table(
        f"Time to accuracy, {'a worker per subdomain (computed)' if parallel else 'one machine (measured)'}",
        ("seconds until validation accuracy", *(f"{100 * level:g} %" for level in levels)),
        tuple(rows),
        f"{how} Median over the seeds, and in brackets how many of them reached it. Where half or more did not, the "
        "time is censored: it is longer than the trainings were.",
    )


def _median(trajectories: Sequence[Sequence[TimedAccuracy]], level: float, *, parallel: bool) -> str:
    axis = 1 if parallel else 0
    reached = [time_to(points, level) for points in trajectories]
    times = [np.inf if point is None else point[axis] for point in reached]
    count = sum(point is not None for point in reached)
    median = float(np.median(times)) if count == len(times) else float(np.quantile(times, 0.5, method="higher"))
    if np.isfinite(median):
        return f"{median:.1f} ({count}/{len(times)})"
    return f"> {np.median([points[-1][axis] for points in trajectories]):.1f} ({count}/{len(times)})"

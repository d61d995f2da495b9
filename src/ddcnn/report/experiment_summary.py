"""The typed form of the ``summary.json`` of an experiment, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddcnn.errors import RunError
from ddcnn.experiments.experiment_folder import NOT_ASKED, SUMMARY, read_json
from ddcnn.report.labels_and_formats import MISSING, count, seconds
from ddcnn.report.results import Number, Text

Interval = tuple[Number, Number] | None
_MOST = 10_000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Arm(_Record):
    """One arm: its test accuracies, one per seed or fold, and what it cost in the mean."""

    name: Text
    values: Annotated[tuple[Number, ...], Field(max_length=_MOST)]
    n: int
    mean: float
    sd: Number
    interval: Interval
    images_sd: Number
    parameters: Number
    epochs: Number
    seconds: Number
    critical_path_seconds: Number


class PairRecord(_Record):
    """The difference of two arms, over seeds or folds, and over test images."""

    arm: Text
    other: Text
    measure: Text
    n: int
    mean: float
    sd: Number
    interval: Interval
    t_p: Number
    holm_p: Number
    wilcoxon_p: Number
    equivalence_holm_p: Number
    seeds_needed: int | None
    images_interval: Interval
    mcnemar_p: Annotated[tuple[Number, ...], Field(max_length=_MOST)]
    verdict: Text


class TableRecord(_Record):
    """A further table."""

    title: Text
    columns: tuple[Text, ...]
    rows: tuple[tuple[Text, ...], ...]
    note: Text = ""


class CurveRecord(_Record):
    """A further plot: per line (x, mean, low, high)."""

    title: Text
    x: Text
    y: Text
    lines: dict[Text, tuple[tuple[float, float, float, float], ...]]
    note: Text = ""
    log: bool = False
    percent: bool = True


class Summary(_Record):
    """A whole ``summary.json``."""

    experiment: Text
    question: Text
    command: Text = ""
    unit: Text
    units: tuple[int, ...]
    share: float = 0.0
    margin: float
    about: dict[str, Any]
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=_MOST)]
    pairs: tuple[PairRecord, ...] = ()
    tables: tuple[TableRecord, ...] = ()
    curves: tuple[CurveRecord, ...] = ()
    left_out: dict[Text, Text] = {}
    versions: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    differing: dict[Text, dict[Text, tuple[Text, ...]]] = {}

    @classmethod
    def parse(cls, values: Any, source: str = SUMMARY) -> Summary:
        """Check the content of ``summary.json``.

        Raises
        ------
        RunError
            One line that names the field.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RunError(f"{source}: {place} cannot be used: {first['msg']}; run the experiment again") from None


def read_summary(folder: Path) -> Summary:
    """Read what an experiment found.

    Raises
    ------
    RunError
        There is no such file, or it is damaged.
    """
    return Summary.parse(read_json(folder / SUMMARY), str(folder / SUMMARY))


def differences(summary: Summary) -> list[str]:
    """Return what the cells do not have in common, one line each."""
    return [
        f"not the same in all cells, so that results may differ by it: {what} "
        + ", ".join(f"{value} ({_some(cells)})" for value, cells in of.items())
        for what, of in summary.differing.items()
    ]


def missing_arms(summary: Summary) -> list[str]:
    """Return what is missing though it was asked for, such as a cell whose loss diverged, and why, one line each."""
    return [f"left out: {name}: {why}" for name, why in summary.left_out.items() if why != NOT_ASKED]


def _some(cells: Sequence[str]) -> str:
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def arm_columns(summary: Summary) -> tuple[str, ...]:
    """Return the names of the columns of the table of arms."""
    return (
        "result",
        f"{summary.unit}s",
        "test accuracy (%)",
        "sd",
        "95 % interval",
        "parameters",
        "epochs",
        "time (s)",
        "critical path (s)",
    )


def arm_row(arm: Arm) -> tuple[str, ...]:
    """Return one row of the table of arms."""
    return (
        arm.name,
        str(arm.n),
        points(arm.mean, signed=False),
        points(arm.sd, signed=False),
        bounds(arm.interval, signed=False),
        count(None if arm.parameters is None else round(arm.parameters)),
        count(arm.epochs),
        seconds(arm.seconds),
        seconds(arm.critical_path_seconds),
    )


def pair_columns(summary: Summary) -> tuple[str, ...]:
    """Return the names of the columns of the table of differences."""
    return (
        "difference",
        "points",
        f"{summary.unit}s",
        "verdict",
        f"95 % over {summary.unit}s",
        "95 % over images",
        "p (Holm)",
        "t-test p",
        "Wilcoxon p",
        "equal p (Holm)",
        f"{summary.unit}s needed",
    )


def pair_row(pair: PairRecord) -> tuple[str, ...]:
    """Return one row of the table of differences."""
    what = "" if pair.measure == "test_accuracy" else f" ({pair.measure})"
    return (
        f"{pair.arm} − {pair.other}{what}",
        points(pair.mean),
        str(pair.n),
        pair.verdict,
        bounds(pair.interval),
        bounds(pair.images_interval),
        probability(pair.holm_p),
        probability(pair.t_p),
        probability(pair.wilcoxon_p),
        probability(pair.equivalence_holm_p),
        MISSING if pair.seeds_needed is None else str(pair.seeds_needed),
    )


def points(value: float | None, *, signed: bool = True) -> str:
    """Write a fraction as percent, or a difference of fractions as percentage points.

    >>> points(0.0123), points(-0.004), points(0.9, signed=False), points(None)
    ('+1.23', '-0.40', '90.00', '-')
    """
    return MISSING if value is None else format(100 * value + 0.0, "+.2f" if signed else ".2f")


def bounds(interval: Interval, *, signed: bool = True) -> str:
    """Write an interval.

    >>> bounds((-0.01, 0.02))
    '-1.00 to +2.00'
    """
    if interval is None or None in interval:
        return MISSING
    return " to ".join(points(bound, signed=signed) for bound in interval)


def probability(p: float | None) -> str:
    """Write a p-value.

    >>> probability(0.0314), probability(0.00004), probability(None)
    ('0.031', '< 0.001', '-')
    """
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"

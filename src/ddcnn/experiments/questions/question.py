"""`Experiment`: what a question is made of: variants of a configuration, arms, pairs to be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from ddcnn.config import Config
from ddcnn.errors import ConfigError
from ddcnn.extras import install
from ddcnn.planning import Setup

ACCURACY = "test_accuracy"

Arms = Mapping[str, Sequence[Mapping[str, Any]]]
"""Per arm, by its label, the rows of its cells."""


@dataclass(frozen=True)
class Variant:
    """A configuration; with a seed it is a cell, which is an ordinary run.

    Attributes
    ----------
    name
        Of its runs: a word that may be part of a folder's name.
    values
        What is laid over the user's configuration: nested sections.
    arms
        Which results of the run are arms, and what readers call them; each arm is in one variant.
    job
        Whether the run is that of `ddcnn.compare`, all strategies, or of `ddcnn.train`, one.
    needed
        Whether the experiment makes no sense without it; others are left out where they do not fit the images.
    like
        The name of an earlier variant that takes about as long, so that the steps of this one need not be timed; or
        nothing.
    """

    name: str
    values: Mapping[str, Any]
    arms: Mapping[str, str]
    job: Literal["compare", "train"] = "train"
    needed: bool = True
    like: str = ""


@dataclass(frozen=True)
class Pair:
    """Two arms whose difference answers something; by ``measure``, which is the test accuracy unless it is named."""

    arm: str
    other: str
    measure: str = ACCURACY


@dataclass(frozen=True)
class Table:
    """A further table of the page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A further plot: per line, points (x, mean, low, high), with values 0..1 that are shown in percent, or any."""

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[tuple[float, float, float, float], ...]]
    note: str = ""
    log: bool = False
    percent: bool = True


@dataclass(frozen=True)
class Findings:
    """What all cells found, as further tables and curves are made of it.

    Attributes
    ----------
    arms
        Per arm, by its label, the rows of its cells in the order of the seeds: as in a line of ``cells.jsonl``.
    share
        As in `ddcnn.experiments.statistics.spread`.
    configs
        Per arm, the configuration of its first cell.
    """

    arms: Arms
    share: float = 0.0
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def values(self, arm: str, measure: str = ACCURACY) -> list[float]:
        """Return one value per cell of an arm; cells without it are left out."""
        rows = (row if measure == ACCURACY else row["measures"] for row in self.arms.get(arm, ()))
        return [row[measure] for row in rows if row.get(measure) is not None]


def nothing_more(_found: object, _name: str) -> dict[str, float]:
    """Return no further measure."""
    return {}


@dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it.

    Attributes
    ----------
    question
        In one sentence.
    variants
        Of what the configuration leads to: data, networks.
    pairs
        Which differences are tested; those of arms that were left out are not.
    defaults
        Configuration below that of the user.
    measures
        What else is to be known of a result of a run, by name: (content of ``comparison.json``, name of the result).
    examine
        What is measured of the networks of a run, by name: (the folder of the run, name of the result).
    more
        Further tables and curves.
    chosen
        The arms of which test accuracies are told and compared; the labels of pairs are theirs. All of them, unless an
        experiment chooses, which it does by validation accuracies.
    needs
        Packages of the extra ``experiments`` that it cannot do without: what is imported, and what is installed.
    asks
        Fields of the configuration that the user must give, such as ``init.weights``, and the option that gives each.
    """

    question: str
    variants: Callable[[Setup], Sequence[Variant]]
    pairs: tuple[Pair, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    measures: Callable[[Mapping[str, Any], str], Mapping[str, float]] = nothing_more
    examine: Callable[[Path, str], Mapping[str, float]] = nothing_more
    more: Callable[[Findings], Sequence[Table | Curve]] = lambda _findings: ()
    chosen: Callable[[Arms], Arms] = lambda arms: arms
    needs: Mapping[str, str] = field(default_factory=dict)
    asks: Mapping[str, str] = field(default_factory=dict)

    def check(self, name: str, config: Config) -> None:
        """Raise a `ConfigError` that names the extra if a package is not there, or the field that is not given."""
        for module, package in self.needs.items():
            if find_spec(module) is None:
                raise ConfigError(f"experiment {name} needs the package {package}: {install('experiments')}")
        for path, option in self.lacks(config).items():
            raise ConfigError(f"experiment {name} needs {path}, which is not given: {option}")

    def lacks(self, config: Config) -> dict[str, str]:
        """Return the fields that the user must give and has not given, and the option that gives each."""
        return {path: option for path, option in self.asks.items() if attrgetter(path)(config) is None}

"""`experiment`: a grid of cells, variant x seed, each an ordinary run; what is done is never done again."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddcnn.config import Config
from ddcnn.config.values import merge
from ddcnn.data.content import content_of
from ddcnn.data.source_paths import read_by, source_folder
from ddcnn.engines import refuse_ranks
from ddcnn.errors import ConfigError, DecompositionError, ModelError, TrainingError
from ddcnn.experiments.cells import Cell, agrees, folder_of, name_of, reread, run_cell
from ddcnn.experiments.experiment_folder import CELLS, NOT_ASKED, ExperimentFolder
from ddcnn.experiments.job import Job
from ddcnn.experiments.plan import costs_of, ready
from ddcnn.experiments.questions import EXPERIMENTS, Experiment, Variant
from ddcnn.experiments.summary import summarise
from ddcnn.experiments.trials import Trials
from ddcnn.folders import check_apart
from ddcnn.planning import Setup, open_images, prepare
from ddcnn.runs.folder import default_folder
from ddcnn.strategies import check_strategies
from ddcnn.text import duration
from ddcnn.training import Progress

SEEDS, EPOCHS = 3, 8


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes
    ----------
    summary
        As in ``summary.json``: arms, pairs, further tables and curves.
    folder
        Where it lies; each cell is a run in ``cells/``.
    """

    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class ExperimentPlan:
    """The runs of an experiment, before any is begun.

    Attributes
    ----------
    name, found
        The experiment.
    base
        What variants are laid over.
    units
        ``("seed", 0)``, ... or ``("fold", 0)``, ...
    configs, seconds
        Per variant: its configuration, without seed, fold and folder; and about how long one run takes here, 0 if all
        of its cells are done.
    variants
        Those that fit the images.
    left_out
        The others, and why.
    offered
        All of them by their names, in the order of the experiment.
    content
        Digests of the images, as they are now: (n, 16).
    precision
        In which all cells compute but those whose variant names another, so that arms do not differ in it. ``"auto"``:
        each as it was chosen for it; so it is in experiments that earlier versions began.
    """

    name: str
    found: Experiment
    base: Config
    units: tuple[tuple[str, int], ...]
    variants: tuple[Variant, ...]
    configs: Mapping[str, Config]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]
    offered: Mapping[str, Variant]
    content: Tensor
    precision: str

    @property
    def all_seconds(self) -> float:
        """About how long all runs take here, one after the other."""
        return len(self.units) * sum(self.seconds.values())

    def cells(self, out: Path) -> list[Cell]:
        """Return the cells, seed by seed: so all arms stand side by side as early as can be."""
        return [self._cell(variant, unit, number, out) for unit, number in self.units for variant in self.variants]

    def cells_beside(self, folder: ExperimentFolder) -> list[Cell]:
        """Return the cells with those that the folder has complete, though they are not asked for this time."""
        cells = {cell.name: cell for cell in self.cells(folder.path)}
        unit = self.units[0][0]
        for name in folder.cell_names():
            variant, _, number = name.rpartition(f"-{unit[0]}")
            if variant in self.offered and number.isdecimal() and number.isascii():
                cell = self._cell(self.offered[variant], unit, int(number), folder.path)
                if cell.name == name and cell.folder.is_complete():
                    cells.setdefault(cell.name, cell)
        order = list(self.offered)
        return sorted(cells.values(), key=lambda cell: (cell.number, order.index(cell.variant.name)))

    def _cell(self, variant: Variant, unit: str, number: int, out: Path) -> Cell:
        config = _at(self.configs.get(variant.name) or laid_over(self.base, variant), unit, number)
        config = config.model_copy(update={"out": folder_of(out, variant, unit, number)})
        return Cell(self.name, variant, unit, number, config)


def experiment(
    name: str,
    values: Mapping[str, Any] | Config | None = None,
    *,
    seeds: int = SEEDS,
    variants: Sequence[str] = (),
    out: Path | str | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Outcome:
    """Run an experiment, or go on with it: a grid of runs, and statistics of what they found.

    Parameters
    ----------
    name
        One of ``ddcnn experiment --list``, or ``module:name`` of your own `ddcnn.experiments.questions.Experiment`.
    values
        Nested sections of the configuration, over the defaults of the experiment (8 epochs); its variants are laid over
        both. ``seed`` is the first seed. With ``data.folds`` there is a cell per fold instead of per seed.
    seeds
        How many seeds. More of them later only add cells; fewer leave those that are done where they are.
    variants
        Names of the variants to run; none: all. Asked for others later, it runs these alone, beside what is done.
    out
        Folder; None: ``runs/experiment-NAME-DATA-MODEL-GRID``. If the experiment is there, it goes on: cells that are
        done are read, and a cell that was killed goes on from its checkpoints.
    progress, command
        As in `ddcnn.compare`.

    Raises
    ------
    DdcnnError
        Anything that cannot be used, found before anything is trained; or the folder holds something else.
    """
    refuse_ranks("experiment")
    base = base_config(EXPERIMENTS.find(name), values)
    EXPERIMENTS.find(name).check(name, base)
    progress = progress or Progress()
    path = Path(out) if out is not None else experiment_folder(name, values)
    folder = ExperimentFolder(path, name)
    check_apart(path, read_by(base), source_folder(base.data))
    folder.check()
    plan = plan_experiment(
        name, values, seeds=seeds, variants=variants, precision=folder.read_precision(), done=folder.complete_cells()
    )
    with folder.held(command, plan.precision):
        cells = plan.cells_beside(folder)
        there = {cell.variant.name for cell in cells}
        left_out = {variant: why for variant, why in plan.left_out.items() if variant not in there}
        for variant, why in left_out.items():
            progress.note(f"variant {variant} is left out: {why}")
        records = _done(folder, cells, plan, progress)
        clock = _Clock([cell for cell in cells if cell.name not in records], plan.seconds)
        if plan.precision != "auto" and len(records) < len(cells):
            progress.note(f"precision {plan.precision}, in all cells")
        for number, cell in enumerate(cells, 1):
            if cell.name in records:
                continue
            what = f"{cell.variant.name}, {cell.unit} {cell.number}"
            progress.note(f"cell {number} of {len(cells)}: {what}; {clock.left} left in all")
            try:
                with clock.timing(cell):
                    records[cell.name] = run_cell(plan.found, cell, progress, command)
            except TrainingError as error:  # such as a loss that diverged: the other cells say what they say
                if not records and number == len(cells):
                    raise
                left_out[what] = str(error)
                progress.note(f"{what} is left out: {error}")
                continue
            cell.check_images(plan.content)
            folder.write_records([records[one.name] for one in cells if one.name in records])
        done = [records[cell.name] for cell in cells if cell.name in records]
        summary = summarise(plan.found, name, done, path / "cells", command)
        summary["left_out"] = left_out
        folder.write_summary(summary)
    return Outcome(summary, path)


def plan_experiment(
    name: str,
    values: Mapping[str, Any] | Config | None = None,
    *,
    seeds: int = SEEDS,
    variants: Sequence[str] = (),
    trials: Trials | None = None,
    precision: str | None = None,
    done: Collection[str] = (),
) -> ExperimentPlan:
    """Return what an experiment would do, and what it would cost here: steps are timed, unless ``trials`` has them.

    Of a variant whose cells are all ``done``, by their names, nothing is timed.

    With ``compute.precision = auto`` all cells compute in ``precision``, as it was decided when the experiment was
    begun. None decides: bfloat16 if that is the faster for every variant, else float32.
    """
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds} should be at least 1")
    found = EXPERIMENTS.find(name)
    base = base_config(found, values)
    if precision is not None and base.compute.precision == "auto":
        base = _computed_in(base, precision)
    first = ("fold", 0) if base.data.folds is not None else ("seed", base.seed)
    units = [("fold", n) for n in range(math.prod(base.data.folds))] if base.data.folds is not None else [
        ("seed", base.seed + n) for n in range(seeds)
    ]  # fmt: skip
    dataset, trials = open_images(base), trials or Trials(careful=False)
    setup = prepare(_at(base, *first), dataset)
    offered = _offered(name, setup, variants)
    chosen, configs, left_out = [], {}, {}
    seconds: dict[str, float] = {}
    timed: dict[str, tuple[float, str]] = {}  # by the name of a variant, or of what it is like
    for variant in offered.values():
        if variants and variant.name not in variants:
            left_out[variant.name] = NOT_ASKED
            continue
        config = laid_over(base, variant)
        is_done = all(name_of(variant, *unit) in done for unit in units)
        alike = variant.like or variant.name
        try:
            setup = prepare(_at(config, *first), dataset)
            check_strategies(list(Job.of(variant.job, config).strategies), setup)
            if not is_done and alike not in timed:
                timed[alike] = _tried(setup, variant.job, trials)
        except (ConfigError, DecompositionError, ModelError) as error:
            if variant.needed:
                raise
            left_out[variant.name] = str(error)
            continue
        chosen.append(variant)
        configs[variant.name] = config
        seconds[variant.name] = 0.0 if is_done else timed[alike][0]
    if precision is None and base.compute.precision == "auto":
        precision = "bfloat16" if {fastest for _, fastest in timed.values()} == {"bfloat16"} else "float32"
        base = _computed_in(base, precision)
        configs = {variant: _computed_in(config, precision) for variant, config in configs.items()}
    return ExperimentPlan(
        *(name, found, base, tuple(units), tuple(chosen), configs, seconds, left_out, offered, content_of(dataset)),
        precision=base.compute.precision,
    )


def _offered(name: str, setup: Setup, asked: Sequence[str]) -> dict[str, Variant]:
    """Return the variants of an experiment by their names; there are those that are asked for, and test images."""
    if not len(setup.data.split.test):
        raise ConfigError(
            "an experiment compares accuracies on test images, and data.test = 0 leaves none; leave it out"
        )
    offered = {variant.name: variant for variant in EXPERIMENTS.find(name).variants(setup)}
    for one in asked:
        if one not in offered:
            raise ConfigError(f"experiment {name} has no variant {one!r}; use {', '.join(offered)}")
    return offered


def _computed_in(config: Config, precision: str) -> Config:
    """Return the configuration with that precision where it is left at ``auto``."""
    if config.compute.precision != "auto":
        return config
    return Config.parse(merge(config.model_dump(mode="json"), {"compute": {"precision": precision}}))


def _tried(setup: Setup, job: str, trials: Trials) -> tuple[float, str]:
    """Return about how many seconds one run takes, and the precision that is the fastest for it."""
    with contextlib.ExitStack() as contexts:
        asked = Job.of(job, setup.config)
        setup, _, hands = ready(setup, asked, contexts)
        seconds = sum(cost.seconds for cost in costs_of(setup, asked, hands, trials).values())
        return seconds, setup.compute.precision


def base_config(found: Experiment, values: Mapping[str, Any] | Config | None) -> Config:
    """Return the configuration that variants are laid over."""
    given = values.model_dump(mode="json") if isinstance(values, Config) else dict(values or {})
    short = {} if "recipe" in given else {"training": {"epochs": EPOCHS}}
    merged = merge(merge(short, found.defaults), given)
    return Config.parse(merged | {"out": None, "force": False})


def experiment_folder(name: str, values: Mapping[str, Any] | Config | None = None) -> Path:
    """Return the folder of an experiment that was given none."""
    config = base_config(EXPERIMENTS.find(name), values)
    path = default_folder(config.model_copy(update={"seed": 0}), f"experiment-{name}")
    return path.with_name(path.name.removesuffix("-s0"))


def laid_over(base: Config, variant: Variant) -> Config:
    """Return the configuration of a variant."""
    return Config.parse(merge(base.model_dump(mode="json"), variant.values))


def _at(config: Config, unit: str, number: int) -> Config:
    """Return the configuration for a seed or a fold."""
    if unit == "seed":
        return config.model_copy(update={"seed": number})
    return config.model_copy(update={"data": config.data.model_copy(update={"fold": number})})


def _done(
    folder: ExperimentFolder, cells: Sequence[Cell], plan: ExperimentPlan, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return the records of the cells that are done, as their runs say; whatever was begun otherwise is found now."""
    for cell in cells:
        cell.check()
        cell.check_images(plan.content)
    damage: list[str] = []
    known = folder.read_records(damage.append)
    for line in damage:
        progress.note(line)
    complete = [cell for cell in cells if cell.folder.is_complete()]
    found = {cell.name: reread(plan.found, cell, known.get(cell.name, {})) for cell in complete}
    records = {name: record for name, record in found.items() if record is not None}
    if changed := [name for name, record in records.items() if name in known and not agrees(known[name], record)]:
        some = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        progress.note(f"{CELLS}: the lines of {some} are not what their runs say, and are written again")
    if damage or any(known.get(name) != record for name, record in records.items()):
        folder.write_records([*records.values()])
    return records


class _Clock:
    """Tells how long it will still take: the estimates, scaled by how they have held so far."""

    def __init__(self, cells: Sequence[Cell], estimates: Mapping[str, float]) -> None:
        self._estimates = estimates
        self._left = [cell.variant.name for cell in cells]
        self._expected = self._needed = 0.0

    @contextlib.contextmanager
    def timing(self, cell: Cell) -> Iterator[None]:
        """Take note of the time that a cell takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._left.remove(cell.variant.name)
            self._expected += self._estimates.get(cell.variant.name, 0.0)  # none of a cell that is only read
            self._needed += time.perf_counter() - start

    @property
    def left(self) -> str:
        """The time that is left, in words."""
        scale = self._needed / self._expected if self._expected else 1.0
        return "about " + duration(scale * sum(self._estimates.get(name, 0.0) for name in self._left))

"""`ddcnn plan`, and `--dry-run` of `train` and `compare`: what a run will cost here; nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, use_huge_pages
from ddcnn.cli.first_line import first_line
from ddcnn.cli.options import (
    COMPUTE,
    FIELDS,
    ConfigOption,
    Given,
    JsonOption,
    QuietOption,
    SetOption,
    TimeLimitOption,
    assigned,
    build_config,
    in_words_of_options,
    seconds_of,
    with_fields,
    without_epochs,
)
from ddcnn.errors import ConfigError
from ddcnn.text import duration, printable, size_text

if TYPE_CHECKING:
    from rich.table import Table

    from ddcnn.config import Config
    from ddcnn.experiments import Plan
    from ddcnn.experiments.verification import Verified
    from ddcnn.training import Progress


_OF_THE_FOLDER = ("--out", "--track", "--force")  # taken, so that the command of a run can be planned as it is


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


@with_fields(FIELDS, hidden=_OF_THE_FOLDER)
def plan(
    given: Given,
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    time_limit: TimeLimitOption = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Count only: no times, no peaks.", rich_help_panel=COMPUTE)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Train one epoch: prediction against measurement.", rich_help_panel=COMPUTE),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a run will cost here: parameters, operations, memory, exchange, time; and how many workers pay.

    The plan is that of compare with the same options; with --strategy, that of train. No run is begun:
    --out, --track and --force of a run are taken, and change nothing.

    \b
    For example:
    ddcnn plan --data mnist5k --epochs 8
    ddcnn plan --data folder:photos --strategy transfer --time-limit 30m
    ddcnn plan --data cifar10 --grid 4x4 --no-measure --json
    """  # noqa: D301
    let_threads_sleep()
    given_assignments = assignments or []
    without_epochs(given.fields, given_assignments, time_limit)
    with in_words_of_options(given.fields, given_assignments):
        built = build_config(given.fields, config, given_assignments)
        asked = "strategy" in {*given.fields, *assigned(given_assignments)}
        job = "train" if asked else "compare"
        if verify:
            if no_measure or time_limit is not None:
                raise ConfigError("--verify measures one epoch; leave out --no-measure and --time-limit")
            show_verified(built, job, as_json=as_json, quiet=quiet)
        else:
            show_plan(built, job, time_limit, measure=not no_measure, as_json=as_json, quiet=quiet)


def show_plan(
    config: Config, job: str, time_limit: str | None = None, *, measure: bool = True, as_json: bool, quiet: bool
) -> None:
    """Print a plan on stdout."""
    limit = seconds_of(time_limit)

    def work(progress: Progress) -> Plan:
        from ddcnn import experiments

        return experiments.plan(config, job=job, measure=measure, time_limit=limit, progress=progress)

    made = _watched(work, config, as_json=as_json, quiet=quiet)
    from ddcnn.cli.display import print_json

    if as_json:
        print_json(made.to_json())
    else:
        _print_plan(made)


def show_verified(config: Config, job: str, *, as_json: bool, quiet: bool) -> None:
    """Print a plan, and what one epoch took."""

    def work(progress: Progress) -> tuple[Plan, list[Verified]]:
        from ddcnn.experiments.verification import verify

        return verify(config, job=job, progress=progress)

    made, rows = _watched(work, config, as_json=as_json, quiet=quiet)
    from ddcnn.cli.display import print_json, print_table

    if as_json:
        print_json(made.to_json() | {"verified": [_as_json(row) for row in rows]})
        return
    _print_plan(made)
    print_table(_verified_table(rows))


def _watched(work: Any, config: Config, *, as_json: bool, quiet: bool) -> Any:
    first_line(config.data, quiet=quiet)
    use_huge_pages(config)
    from ddcnn.cli.display import watching

    with watching(quiet=quiet) as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
        return work(progress)


def _print_plan(plan: Plan) -> None:
    from ddcnn.cli.display import print_table

    print_table(_stages_table(plan))
    if plan.seconds is not None:
        runs = "" if plan.runs == 1 else f" for {plan.runs} folds"
        assert plan.evaluation_seconds is not None
        print(
            f"about {duration(plan.seconds)} in all{runs}, evaluation {duration(plan.evaluation_seconds)} of it; "
            f"{plan.epochs} epochs a stage"
        )
    print(printable(_exchange(plan)))
    if plan.workers:
        print_table(_workers_table(plan))
    for line in plan.advice:
        print(printable(f"recommended: {line}"))
    if plan.seconds is not None and not plan.advice:
        print("recommended: nothing else; it fits this machine as it is")


def _stages_table(plan: Plan) -> Table:
    measured = plan.seconds is not None
    names = ("stage", "parameters", "operations", "activations", "steps (images each)", "time", "peak memory")
    rows = []
    for stage in plan.stages:
        cells = [stage.label, f"{stage.parameters:,}", _operations(stage.operations), size_text(stage.activations)]
        cells.append(f"{stage.steps:,} ({stage.batch_size})")
        if measured:
            cells += [duration(stage.seconds or 0.0), "-" if stage.peak is None else size_text(stage.peak)]
        rows.append(cells)
    if measured:
        peak = "-" if plan.evaluation_peak is None else size_text(plan.evaluation_peak)
        rows.append(["evaluation", "", "", "", "", duration(plan.evaluation_seconds or 0.0), peak])
    table = _table(names if measured else names[:5], rows)
    table.caption = "operations of an image, forward and backward; activations of a batch"
    return table


def _exchange(plan: Plan) -> str:
    """Say what goes between ranks."""
    some = [stage for stage in plan.stages if stage.exchanged]
    if not some:
        return "exchanged: nothing"
    each = ", ".join(
        f"{one.label} {one.exchanged_per_step:,} bytes a step, {size_text(one.exchanged)} in all" for one in some
    )
    return f"exchanged, if spread over ranks: {each}; local CNNs: nothing"


def _workers_table(plan: Plan) -> Table:
    first = plan.workers[0].seconds
    where = {"here": "on the cores of this machine", "elsewhere": "each on a machine like this one"}
    rows = [
        [str(one.workers), where[one.where], duration(one.seconds), f"{first / one.seconds:.1f}"]
        for one in plan.workers
    ]
    return _table(("workers for local CNNs", "where", "time", "times as fast"), rows)


def _verified_table(rows: Sequence[Verified]) -> Table:
    cells = []
    for row in rows:
        predicted, measured = row.predicted, row.measured
        known = predicted.peak is not None and measured.peak is not None
        cells.append(
            [
                predicted.label,
                f"{predicted.seconds:.2f} s",
                f"{measured.seconds:.2f} s",
                f"{predicted.seconds / measured.seconds:.2f}",
                size_text(predicted.peak) if known and predicted.peak else "-",
                size_text(measured.peak) if known and measured.peak else "-",
                f"{predicted.peak / measured.peak:.2f}" if known and predicted.peak and measured.peak else "-",
            ]
        )
    names = ("one epoch", "predicted", "measured", "ratio", "predicted peak", "measured peak", "ratio")
    return _table(names, cells)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _as_json(row: Verified) -> dict[str, Any]:
    return {
        "name": row.name,
        "predicted_seconds": row.predicted.seconds,
        "measured_seconds": row.measured.seconds,
        "predicted_peak": row.predicted.peak,
        "measured_peak": row.measured.peak,
    }


def _operations(number: int) -> str:
    return f"{number / 1e9:,.2f} G" if number >= 1e9 else f"{number / 1e6:,.2f} M"

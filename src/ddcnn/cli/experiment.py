"""`ddcnn experiment`: a question in, a grid of runs, a table and a page out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, use_huge_pages
from ddcnn.cli.options import (
    FIELDS,
    OUTPUT,
    ConfigOption,
    Given,
    JsonOption,
    QuietOption,
    SetOption,
    in_words_of_options,
    put,
    with_fields,
)
from ddcnn.errors import ConfigError, InterruptionError
from ddcnn.text import printable

if TYPE_CHECKING:
    from rich.table import Table

_OWN = ("--strategy", "--force", "--out", "--seed")  # said otherwise, or not for the user to say
_MODELS = "As of compare. Default vgg9; levels, subdomains, decompositions and loss-surface take resnet20."
_FIELDS = [
    replace(field, text=_MODELS) if field.option == "--model" else field for field in FIELDS if field.option not in _OWN
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(experiment)


@with_fields(_FIELDS)
def experiment(
    given: Given,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which: see --list; or module:name.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Runs of each variant.", min=1)] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The first seed.", min=0)] = 0,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variants", metavar="NAME", help="Run this one alone; may be repeated. Default all.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Default runs/experiment-NAME-DATA-MODEL-GRID. What is there goes on.", rich_help_panel=OUTPUT
        ),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Say what each asks, and what it costs here.")] = False,
    config: ConfigOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Answer a question by a grid of runs: which strategy, how many subdomains, which aggregation, which start, ...

    Each variant is trained with each seed. The answer is a table with intervals and paired tests, and a page. The same
    command goes on where it was stopped: nothing is done twice. More --seeds later only add runs.

    \b
    For example:
    ddcnn experiment --list
    ddcnn experiment strategies --data mnist5k --seeds 3
    ddcnn experiment subdomains --data cifar10 --seeds 5 --epochs 20 --out runs/scaling
    """  # noqa: D301
    let_threads_sleep()

    with in_words_of_options(given.fields, assignments or []):
        values = _values(given.fields, config, assignments or [], seed)
        if listing:
            _list(name, values, seeds, variants or [], as_json=as_json, quiet=quiet)
        elif name is None:
            raise ConfigError("which experiment? give its NAME; ddcnn experiment --list says what there is")
        else:
            _run(name, values, seeds, variants or [], out, given.line, as_json=as_json, quiet=quiet)


def _values(given: Mapping[str, Any], file: Path | None, assignments: list[str], seed: int) -> dict[str, Any]:
    """Return the user's configuration, as nested values: file, then options, then ``--set``; the later one wins."""
    from ddcnn.config import assign, read_yaml

    values = {} if file is None else read_yaml(file)
    for name in ("force", "out", "strategy"):
        values.pop(name, None)
    values = put(values, given) | {"seed": seed}
    for assignment in assignments:
        assign(values, assignment)
    return values


def _run(
    name: str,
    values: dict[str, Any],
    seeds: int,
    variants: list[str],
    out: Path | None,
    line: str,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from ddcnn.training.interruption import listening

    with listening():
        from ddcnn import experiments
        from ddcnn.cli.display import print_json, print_path, print_table, watching
        from ddcnn.experiments.experiment import base_config
        from ddcnn.experiments.questions import EXPERIMENTS
        from ddcnn.report import experiment_remarks, experiment_tables, write_experiment_report

        use_huge_pages(base_config(EXPERIMENTS.find(name), values))
        try:
            with watching(quiet=quiet) as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
                outcome = experiments.experiment(
                    name, values, seeds=seeds, variants=variants, out=out, progress=progress, command=line
                )
        except (InterruptionError, KeyboardInterrupt):
            print(f"go on with: {printable(line)}", file=sys.stderr)
            raise
    if as_json:
        print_json(outcome.summary)
    else:
        for table in experiment_tables(outcome.summary):
            print_table(table)
        for remark in experiment_remarks(outcome.summary):
            print(printable(remark))
    page = write_experiment_report(outcome.folder)
    if not quiet:
        print_path("report", page, stderr=as_json)


def _list(
    name: str | None, values: dict[str, Any], seeds: int, variants: list[str], *, as_json: bool, quiet: bool
) -> None:
    from ddcnn.cli.display import print_json, print_table
    from ddcnn.experiments.experiment import base_config, plan_experiment
    from ddcnn.experiments.plan import HOW
    from ddcnn.experiments.questions import EXPERIMENTS
    from ddcnn.experiments.trials import Trials

    names = list(EXPERIMENTS) if name is None else [name]
    bases = {one: base_config(EXPERIMENTS.find(one), values) for one in names}
    trials = Trials(careful=False)
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(names, 1):
        if not quiet:  # a plan measures steps, which takes seconds
            print(printable(f"planning {number} of {len(names)}: {one}"), file=sys.stderr, flush=True)
        row: dict[str, Any] = {"name": one, "question": EXPERIMENTS.find(one).question}
        if lacks := EXPERIMENTS.find(one).lacks(bases[one]):
            rows.append(row | {"runs": 0, "seconds": None, "left_out": {}, "needs": [*lacks.values()]})
            continue
        plan = plan_experiment(one, values, seeds=seeds, variants=variants, trials=trials)
        runs = len(plan.units) * len(plan.variants)
        rows.append(row | {"runs": runs, "seconds": plan.all_seconds, "left_out": dict(plan.left_out), "needs": []})
    if as_json:
        print_json({"seeds": seeds, "how": HOW, "experiments": rows})
        return
    print_table(_table(rows))
    first = next(iter(bases.values()))
    about = f"--data {first.data.source}, {first.training.epochs} epochs a stage, {seeds} seeds; time: {HOW}"
    print(printable(about))
    for row in rows:
        for variant, why in row["left_out"].items():
            print(printable(f"{row['name']} leaves out {variant}: {why}"))


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ddcnn.text import duration

    table = Table("experiment", "question")
    for column in ("runs", "time here"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cost = "needs " + ", ".join(row["needs"]) if row["needs"] else "about " + duration(row["seconds"])
        runs = "" if row["needs"] else str(row["runs"])
        table.add_row(Text(printable(row["name"])), Text(printable(row["question"])), runs, cost)
    return table

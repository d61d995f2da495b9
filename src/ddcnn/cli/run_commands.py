"""`ddcnn compare` and `ddcnn train`: configuration in, run folder and table out. `ddcnn report`: its page again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, use_huge_pages
from ddcnn.cli.first_line import first_line
from ddcnn.cli.options import (
    FIELDS,
    ConfigOption,
    DryRunOption,
    Given,
    JsonOption,
    QuietOption,
    ResumeOption,
    RunArgument,
    SetOption,
    TimeLimitOption,
    TrustOption,
    build_config,
    in_words_of_options,
    seconds_of,
    with_fields,
    without_epochs,
)
from ddcnn.errors import ConfigError, InterruptionError, RankError
from ddcnn.text import printable

if TYPE_CHECKING:
    from ddcnn.experiments import Comparison
    from ddcnn.training import Progress

_CHECKPOINTS = "checkpoints"

_ENGINE = ("compute.engine", "compute.workers", "compute.threads", "compute.ray_address")
_DIRECTORY = "data.directory"
_COMPARE_FIELDS = [field for field in FIELDS if field.option != "--strategy"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(train)
    app.command()(report)


@with_fields(_COMPARE_FIELDS)
def compare(
    given: Given,
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    resume: ResumeOption = None,
    trust: TrustOption = False,
    time_limit: TimeLimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train every strategy on one data set and compare them: accuracy, size, time, memory.

    Global CNN; local CNNs under average, vote and DNN; coherent; transfer.

    Of the recipe, the --config file, the options and --set, the later one wins.

    \b
    For example:
    ddcnn compare --data mnist5k --epochs 8
    ddcnn compare --data cifar10 --model resnet20 --grid 4x4 --epochs 20 --out runs/c10
    ddcnn compare --data folder:flowers --image-size 64 --time-limit 30m
    ddcnn compare --resume runs/c10
    """  # noqa: D301
    source = Source(given, config, assignments or [], resume, trust=trust, time_limit=time_limit)
    _run("compare", source, dry_run=dry_run, as_json=as_json, quiet=quiet)


@with_fields(FIELDS)
def train(
    given: Given,
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    resume: ResumeOption = None,
    trust: TrustOption = False,
    time_limit: TimeLimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one strategy: global, local (then an aggregation), coherent, transfer or compose.

    Of the recipe, the --config file, the options and --set, the later one wins.

    \b
    For example:
    ddcnn train --data mnist5k --strategy transfer --epochs 8
    ddcnn train --config runs/t/config.yaml --seed 1 --out runs/t1
    ddcnn train --resume runs/t1
    """  # noqa: D301
    source = Source(given, config, assignments or [], resume, trust=trust, time_limit=time_limit)
    _run("train", source, dry_run=dry_run, as_json=as_json, quiet=quiet)


def report(run: RunArgument, *, as_json: JsonOption = False) -> None:
    """Write report.html of a run again.

    For example: ddcnn report runs/c10
    """
    from ddcnn.cli.display import print_json, print_path
    from ddcnn.report import write_report
    from ddcnn.runs.folder import RunFolder

    RunFolder(run).manifest()  # a run that did not finish has no report
    page = write_report(run)
    if as_json:
        print_json({"report": str(page)})
    else:
        print_path("report", page)


@dataclass(frozen=True)
class Source:
    """Where a run comes from: options and files, or an earlier run that did not finish."""

    given: Given
    file: Path | None
    assignments: list[str]
    resume: Path | None
    trust: bool
    time_limit: str | None = None


def _run(command: str, source: Source, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    let_threads_sleep()
    without_epochs(source.given.fields, source.assignments, source.time_limit)
    if dry_run:
        _plan(command, source, as_json=as_json, quiet=quiet)
        return
    if source.resume is None:
        with in_words_of_options(source.given.fields, source.assignments):
            first_line(build_config(source.given.fields, source.file, source.assignments).data, quiet=quiet)

    from ddcnn.training.interruption import listening

    with in_words_of_options(source.given.fields, source.assignments), listening():
        job, run = (_begun if source.resume is None else _resumed)(command, source)

        from ddcnn.cli.display import watching
        from ddcnn.engines import LauncherEnvironment

        first = LauncherEnvironment.of(os.environ).rank == 0  # of several ranks one shows what is done
        quiet = quiet or not first
        try:
            with (
                watching(quiet=quiet) as progress,
                redirect_stdout(sys.stderr) if as_json else nullcontext(),
            ):
                comparison = job(progress)
        except (InterruptionError, RankError, KeyboardInterrupt):
            if first and (run / _CHECKPOINTS).is_dir():
                print(printable(f"go on with: ddcnn {command} --resume {shlex.quote(str(run))}"), file=sys.stderr)
            raise
    if first:
        _show(comparison.results, comparison.run, as_json=as_json, quiet=quiet)


def _plan(command: str, source: Source, *, as_json: bool, quiet: bool) -> None:
    """Print what the run would cost."""
    from ddcnn.cli.plan import show_plan

    if source.resume is not None:
        raise ConfigError("--dry-run plans a run that has not begun; leave out --resume")
    with in_words_of_options(source.given.fields, source.assignments):
        config = build_config(source.given.fields, source.file, source.assignments)
        show_plan(config, command, source.time_limit, as_json=as_json, quiet=quiet)


def _begun(command: str, source: Source) -> tuple[Callable[[Progress], Comparison], Path]:
    given, file = source.given, source.file
    config = build_config(given.fields, file, source.assignments)
    use_huge_pages(config)

    from ddcnn import experiments
    from ddcnn.runs.folder import default_folder

    out = config.out or default_folder(config, command)
    config = config.model_copy(update={"out": out})

    def job(progress: Progress) -> Comparison:
        if file is not None and "recipe" in given.fields:
            progress.note(f"--recipe {config.recipe} fills only what {file} leaves out")
        run: Callable[..., Comparison] = getattr(experiments, command)
        limit = {} if source.time_limit is None else {"time_limit": seconds_of(source.time_limit)}
        return run(config, progress=progress, command=given.line, **limit)

    return job, out


def _resumed(command: str, source: Source) -> tuple[Callable[[Progress], Comparison], Path]:  # noqa: ARG001 - of any job
    given = source.given.fields
    others = sorted(
        field.option for field in FIELDS if field.field in given and field.field not in (*_ENGINE, _DIRECTORY)
    )
    others += ["--config"] if source.file else []
    others += ["--set"] if source.assignments else []
    others += ["--time-limit"] if source.time_limit else []
    if others:
        raise ConfigError(f"--resume goes on with the run as it is; leave out {', '.join(others)}")
    assert source.resume is not None
    run = source.resume
    compute = {field.removeprefix("compute."): value for field, value in given.items() if field in _ENGINE}

    from ddcnn.config import Config

    if (run / "config.yaml").is_file():
        use_huge_pages(Config.read(run / "config.yaml"))

    from ddcnn import experiments

    def job(progress: Progress) -> Comparison:
        return experiments.resume(
            run,
            progress=progress,
            command=source.given.line,
            compute=compute,
            directory=given.get(_DIRECTORY),
            trust=source.trust,
        )

    return job, run


def _show(results: Mapping[str, Any], run: Path, *, as_json: bool, quiet: bool) -> None:
    from ddcnn.cli.display import print_json, print_path, print_table
    from ddcnn.report import rich_table, write_report

    if as_json:
        print_json({key: value for key, value in results.items() if key != "details"})
    else:
        print_table(rich_table(results))
    page = write_report(run)
    if not quiet:
        print_path("report", page, stderr=as_json)

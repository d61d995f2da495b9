"""`ddcnn data prepare`: a data set to a store that may be larger than memory."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddcnn.cli.data import data_config
from ddcnn.cli.options import (
    CUTS,
    SOURCES,
    BadFileOption,
    DataDirOption,
    ImageSizeOption,
    JsonOption,
    OfflineOption,
    SetDataOption,
)
from ddcnn.cli.streams import colors
from ddcnn.errors import ConfigError, InterruptionError
from ddcnn.text import printable

if TYPE_CHECKING:
    from ddcnn.data.store.blocks import Advance


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(prepare)


def prepare(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{SOURCES}.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder of the store, such as scans.zarr.")],
    *,
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="GRID", help="Subdomains: 2x2, or 4x4x2 for volumes.")
    ] = None,
    decomposition: Annotated[
        str | None,
        typer.Option(
            "--decomposition", metavar="NAME", help=f"Instead of a grid: {CUTS}; the store is cut as suits it."
        ),
    ] = None,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="PIXELS",
            help="Pixels of its neighbours that each subdomain is stored with, per side: those of the training, and "
            "the shift of its augmentation, if reading should touch one chunk only.",
        ),
    ] = "0",
    data_dir: DataDirOption = None,
    offline: OfflineOption = False,
    image_size: ImageSizeOption = None,
    on_bad_file: BadFileOption = None,
    assignments: SetDataOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads; default per core, up to 8.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another store that is there, once the new one is complete.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a data set as a Zarr store, from which each worker reads only the subdomains that it trains.

    Interrupted, the same command goes on where it ended. Train with --data zarr:DEST.

    \b
    For example:
    ddcnn data prepare folder:scans scans.zarr --grid 4x4
    ddcnn train --data zarr:scans.zarr --grid 4x4 --memory 8GB
    """  # noqa: D301
    from ddcnn.cli.display import print_json, print_path
    from ddcnn.config import Config
    from ddcnn.data.source_paths import check_dest
    from ddcnn.data.sources import open_lazily
    from ddcnn.data.store import replaced, write_store
    from ddcnn.decomposition import Grid, build_decomposition
    from ddcnn.runs.folder import versions
    from ddcnn.training.interruption import listening

    if (grid is None) == (decomposition is None):
        raise ConfigError("give either --grid, such as 2x2, or --decomposition: along what the store is cut")
    given = {"grid": grid} if decomposition is None else {"name": decomposition}
    cuts = build_decomposition(Config.parse({"decomposition": {**given, "overlap": overlap}}).decomposition)
    config = data_config(
        assignments or (),
        source=source,
        directory=data_dir,
        offline=offline or None,
        image_size=image_size,
        on_bad_file=on_bad_file,
    )
    check_dest(dest, config)
    command = shlex.join(["ddcnn", *(context.obj or sys.argv[1:])])
    provenance = {
        "command": command,
        "versions": versions(),
        "config": config.model_dump(mode="json"),
    }
    try:
        with listening(), _watching(quiet=quiet) as advance:
            dataset = open_lazily(config)
            cuts.subdomains(dataset.images.shape[2:])  # one that does not fit is refused here
            parts, width = cuts.chunks(dataset.images.shape[2:])
            write_store(
                dataset,
                dest,
                Grid(parts, overlap=width),
                provenance=provenance,
                workers=workers,
                force=force,
                advance=advance,
            )
    except (InterruptionError, KeyboardInterrupt):
        print(f"go on with: {printable(command)}", file=sys.stderr)
        for before in replaced(dest):
            print(f"the store that it replaces is in {printable(str(before))} until then", file=sys.stderr)
        raise
    if as_json:
        print_json({"store": str(dest), "samples": len(dataset.labels)})
    elif not quiet:
        print_path("store", dest)


@contextmanager
def _watching(*, quiet: bool) -> Iterator[Advance | None]:
    """Provide a bar on stderr, if that is a terminal."""
    if quiet or not sys.stderr.isatty() or colors() is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bars:
        task = bars.add_task("images", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)

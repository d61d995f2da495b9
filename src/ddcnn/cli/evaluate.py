"""`ddcnn evaluate`: how accurate a trained run is, on its own test images or on others."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, with_threads
from ddcnn.cli.data import data_config
from ddcnn.cli.options import (
    DataDirOption,
    ImageSizeOption,
    JsonOption,
    OfflineOption,
    RunArgument,
    SetDataOption,
    StrategyOption,
    ThreadsOption,
    TrustOption,
)
from ddcnn.text import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ddcnn.config import DataConfig
    from ddcnn.exporting import OnnxNetwork

_MOST_CLASSES = 12  # a wider confusion matrix fits no terminal; --json has it
_MOST_NAMED = 20  # files that were left out


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    run: RunArgument,
    *,
    strategy: StrategyOption = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SOURCE", help="All images of folder:PATH, npz:PATH, ... instead of the run's."),
    ] = None,
    data_dir: DataDirOption = None,
    offline: OfflineOption = False,
    image_size: ImageSizeOption = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE", help="This file of ddcnn export answers, not the run.")
    ] = None,
    assignments: SetDataOption = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy of a run on its test images, or on others: in total, per class, per subdomain.

    \b
    For example:
    ddcnn evaluate runs/c10
    ddcnn evaluate runs/c10 --strategy transfer --data npz:new.npz --json
    ddcnn evaluate runs/c10 --onnx c10-transfer.onnx
    """  # noqa: D301
    let_threads_sleep()

    from ddcnn import experiments
    from ddcnn.cli.display import print_json, print_table

    given = {"directory": data_dir, "offline": offline or None, "image_size": image_size}
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), with_threads(threads):
        images = _data(run, data, assignments or (), trust=trust, **given)
        deployed = {} if onnx is None else {"deployed": _onnx(onnx)}
        result = experiments.evaluate(run, data=images, strategy=strategy, trust=trust, **deployed)
    if as_json:
        print_json(result)
        return
    for line in _of_reading(result):
        print(printable(line), file=sys.stderr)
    for table in _tables(result):
        print_table(table)


def _of_reading(result: dict[str, Any]) -> Iterator[str]:
    """Say what reading other images than those of the run had to say, and which files are not judged."""
    if result["part"] == "all":
        yield from (f"note: {one}" for one in result["notes"])
    left_out = result["left_out"]
    yield from (f"left out: {one['reason']}" for one in left_out[:_MOST_NAMED])
    if len(left_out) > _MOST_NAMED:
        yield f"left out: {len(left_out) - _MOST_NAMED} more files; --json names them"


def _onnx(file: Path) -> OnnxNetwork:
    from ddcnn.exporting import OnnxNetwork

    return OnnxNetwork(file)


def _data(run: Path, source: str | None, assignments: Sequence[str], *, trust: bool, **given: Any) -> DataConfig:
    """Return which images are meant: those of the run, perhaps found elsewhere, or others.

    Files of another folder are resized if those of the run were.
    """
    from ddcnn.experiments import own_data
    from ddcnn.runs.folder import RunFolder

    folder = RunFolder(run)
    given = {name: value for name, value in given.items() if value is not None}
    own = own_data(folder, trust=True)
    if source not in (None, own.source):
        return data_config(assignments, source=source, **given)
    own = own_data(folder, trust=trust or "directory" in given)
    return data_config(assignments, **own.model_dump() | given)


def _tables(result: dict[str, Any]) -> list[Table]:
    from rich.table import Table

    classes, matrix = result["classes"], result["confusion"]
    whole = Table("run", "strategy", "data", "part")
    for name in ("samples", "accuracy %", "loss", "Brier", "ECE %"):
        whole.add_column(name, justify="right")
    brier = "-" if result["brier"] is None else f"{result['brier']:.4f}"
    numbers = (
        f"{result['samples']:,}",
        _percent(result["accuracy"]),
        f"{result['loss']:.4f}",
        brier,
        _percent(result["ece"]),
    )
    whole.add_row(*_texts(result[key] for key in ("run", "strategy", "data", "part")), *numbers)
    if result["learned_from"] is None:
        whole.caption = "this run does not say which images it has learned from"
    elif result["learned_from"]:
        whole.caption = f"the run has learned from {result['learned_from']:,} of these images: no test of it"
    if result["thresholds"]:
        chosen = "decides by thresholds chosen in the training"
        whole.caption = f"{whole.caption}; {chosen}" if whole.caption else chosen
    per_class = Table("class")
    columns: list[Text] = _texts(classes) if len(classes) <= _MOST_CLASSES else []
    for heading in [*_texts(("samples", "recall %", "precision %", "F1 %")), *columns]:
        per_class.add_column(heading, justify="right")
    for (name, row), counts in zip(classes.items(), matrix, strict=True):
        shown = [str(count) for count in counts] if columns else []
        figures = (_percent(row[figure]) for figure in ("recall", "precision", "f1"))
        per_class.add_row(*_texts([name]), f"{row['samples']:,}", *figures, *shown)
    tables = [whole, per_class]
    if len(result["subdomains"]) > 1:
        per_subdomain = Table("subdomain", "accuracy %")
        for row in result["subdomains"]:
            accuracy = row["accuracy"]
            per_subdomain.add_row(str(row["index"]), "missing" if accuracy is None else _percent(accuracy))
        tables.append(per_subdomain)
    return tables


def _texts(names: Iterable[str]) -> list[Text]:
    from rich.text import Text

    return [Text(printable(name)) for name in names]  # a plain str would be read as markup


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"

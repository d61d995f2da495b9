"""`ddcnn predict`: class, probabilities and each subdomain's vote, for files of images and volumes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, with_threads
from ddcnn.cli.options import JsonOption, RunArgument, StrategyOption, ThreadsOption, TrustOption
from ddcnn.errors import DataError
from ddcnn.text import printable

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from ddcnn.network import CNNDNN

_MOST = 64  # images at once: so soon is the first one answered


class Resizing(StrEnum):
    """What becomes of files of another size."""

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"
    NO = "no"


class Precision(StrEnum):
    """How probabilities are computed."""

    AUTO = "auto"
    FLOAT32 = "float32"


class OutputFormat(StrEnum):
    """How predictions are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(predict)


def predict(
    run: RunArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Images, volumes (.nii, .nii.gz, folders of DICOM slices), .npy or .npz arrays, or folders of them.",
        ),
    ],
    *,
    strategy: StrategyOption = None,
    form: Annotated[
        OutputFormat, typer.Option("--format", help="table, json (a list) or csv.", metavar="FORM")
    ] = OutputFormat.TABLE,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images at once; default up to 64, of large ones fewer.")
    ] = None,
    resize: Annotated[
        Resizing | None,
        typer.Option(
            "--resize",
            metavar="WORD",
            help="Files of another size: stretch, crop, pad, or no to refuse them; default as in training.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            metavar="WORD",
            help="float32 (default), or auto: bfloat16 where it does not change the class; faster, and probabilities "
            "are less exact.",
        ),
    ] = Precision.FLOAT32,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict the class of images or volumes, with all probabilities and what each subdomain votes for.

    The strategy that was trained answers; of a comparison, the best on the validation images, unless you name one.
    Files of another size are resized as in training, which is said once. Files that cannot be read are named on stderr,
    the others are answered; the exit code is then 1.

    \b
    For example:
    ddcnn predict runs/c10 cat.png dog.jpg
    ddcnn predict runs/c10 photos/ --resize crop --format csv > votes.csv
    """  # noqa: D301
    if len(files) > 1 or not Path(files[0]).is_file() or Path(files[0]).suffix.lower() in (".npy", ".npz"):
        let_threads_sleep()  # one image is answered sooner than the load of the machine is known

    from ddcnn.cli.display import print_json, print_table
    from ddcnn.cli.inputs import Wanted, end_with, find_files, holds_several, read_batches
    from ddcnn.data.images import bombs_are_errors
    from ddcnn.machine import looked_at_once
    from ddcnn.runs.folder import RunFolder
    from ddcnn.runs.networks import best_strategy, load
    from ddcnn.runs.run_validation import read_data

    if as_json and form is OutputFormat.CSV:
        raise DataError("--json and --format csv exclude each other; leave one out")
    folder = RunFolder(run)
    folder.manifest()  # that there is a run is the first thing to know
    bad: list[str] = []
    data = read_data(folder, trust=trust)
    wanted = Wanted.of(data, resize=resize)
    paths = find_files(files, bad, volumes=wanted.volumes)
    name = strategy or best_strategy(folder)
    with with_threads(threads):
        network = load(run, name, trust=trust, backend="looped")
        network.input_check = None  # each file is looked at when it is read
        with bombs_are_errors():
            size = batch_size or min(_MOST, looked_at_once(wanted.shape))
            batches = read_batches(paths, wanted, size, bad)
            count = None if any(map(holds_several, paths)) else len(paths)
            rows = _predict(network, data["classes"], batches, count, quick=precision is Precision.AUTO)
    if not rows:
        end_with(bad, wanted, answered=False)
    if as_json:
        about = {"run": str(run), "strategy": name, "classes": data["classes"], "resized": len(wanted.resized)}
        about |= {} if network.thresholds is None else {"thresholds": list(network.thresholds)}
        print_json(about | {"predictions": rows})
    elif form is OutputFormat.JSON:
        print_json(rows)
    elif form is OutputFormat.CSV:
        _write_csv(rows, data["classes"])
    else:
        print_table(_table(rows, name))
    if network.thresholds:
        print(f"note: {printable(by_thresholds(network.thresholds, data['classes']))}", file=sys.stderr)
    end_with(bad, wanted, answered=True)


def by_thresholds(thresholds: Sequence[float], classes: Sequence[str]) -> str:
    """Say that the most probable class need not be decided for."""
    if len(classes) == 2:
        return f"decides for {classes[1]} above a probability of {thresholds[1]:.3f}, as chosen in the training"
    return "decides by the thresholds of the classes that were chosen in the training: --json shows them"


def _predict(
    network: CNNDNN,
    classes: Sequence[str],
    batches: Iterator[tuple[list[str], np.ndarray]],
    count: int | None,
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """Answer all images; ``count`` is how many there are, None: many, as far as is known."""
    import torch

    from ddcnn.inference import COMPARED, Decider

    rows: list[dict[str, Any]] = []
    decider: Decider | None = None
    for names, arrays in batches:
        images = torch.from_numpy(arrays)
        if decider is None:
            many = count is None or count > 2 * COMPARED  # fewer: to compare costs more than it saves
            decider = Decider(network.for_inference(images, count=count), compare=COMPARED if quick and many else 0)
        together, local = decider(images)
        for name, p, k, votes in zip(names, together, network.decided(together.log()), local, strict=True):
            rows.append({"file": name, "class": classes[int(k)], "probability": round(float(p[k]), 6)})
            rows[-1]["probabilities"] = {c: round(v, 6) for c, v in zip(classes, p.tolist(), strict=True)}
            parts = enumerate(votes.tolist()) if network.local_cnns.members > 1 else ()  # of global, there are none
            silent = {"class": None, "probability": None}
            rows[-1]["subdomains"] = [
                {"index": n, **(silent if n in network.missing else _vote(classes, part))} for n, part in parts
            ]
    return rows


def _vote(classes: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
    k = max(range(len(classes)), key=probabilities.__getitem__)
    return {"class": classes[k], "probability": round(probabilities[k], 6)}


def _table(rows: list[dict[str, Any]], strategy: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("file", "class", title=Text(printable(f"strategy: {strategy}")), title_justify="left")
    table.add_column("probability", justify="right")
    if rows[0]["subdomains"]:
        table.add_column("votes of subdomains 0, 1, ...")
    for row in rows:
        votes = "  ".join(
            "missing" if part["class"] is None else f"{part['class']} {part['probability']:.2f}"
            for part in row["subdomains"]
        )
        cells = [row["file"], row["class"], f"{row['probability']:.3f}", *([votes] if votes else [])]
        table.add_row(*(Text(printable(cell)) for cell in cells))  # a plain str would be read as markup
    return table


def _write_csv(rows: list[dict[str, Any]], classes: Sequence[str]) -> None:
    subdomains = range(len(rows[0]["subdomains"]))
    names = [f"subdomain_{n}_{what}" for n in subdomains for what in ("class", "probability")]
    shown = printable if sys.stdout.isatty() else str  # a program gets names as they are
    writer = csv.writer(sys.stdout, lineterminator="\n")
    of_classes = [shown(f"probability_{name}") for name in classes]
    writer.writerow(["file", "class", "probability", *of_classes, *names])
    for row in rows:
        votes = [part[what] for part in row["subdomains"] for what in ("class", "probability")]
        found = (row["file"], row["class"], row["probability"], *row["probabilities"].values(), *votes)
        writer.writerow(["" if cell is None else shown(cell) for cell in found])

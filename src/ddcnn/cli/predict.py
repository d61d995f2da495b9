"""`ddcnn predict`: class, probabilities and each subdomain's vote, for files of images and volumes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.options import JsonOption, RunArgument, StrategyOption, TrustOption
from ddcnn.errors import DataError
from ddcnn.text import printable

_MANY = 5_000  # files: for fewer, to prove a fused network exact takes longer than it saves

if TYPE_CHECKING:
    from rich.table import Table

    from ddcnn.cli.inputs import Wanted
    from ddcnn.fusion import Backend
    from ddcnn.network import CNNDNN


class Resizing(StrEnum):
    """What becomes of files of another size."""

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"
    NO = "no"


class Format(StrEnum):
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
        Format, typer.Option("--format", help="table, json (a list) or csv.", metavar="FORM")
    ] = Format.TABLE,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 64,
    resize: Annotated[
        Resizing | None,
        typer.Option(
            "--resize",
            metavar="WORD",
            help="Files of another size: stretch, crop, pad, or no to refuse them; default as in training.",
        ),
    ] = None,
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
    from ddcnn.cli.display import print_json, print_table
    from ddcnn.cli.inputs import Wanted, find_files
    from ddcnn.runs.folder import RunFolder
    from ddcnn.runs.networks import best_strategy, load

    if as_json and form is Format.CSV:
        raise DataError("--json and --format csv exclude each other; leave one out")
    folder = RunFolder(run)
    folder.manifest()  # that there is a run is the first thing to know
    bad: list[str] = []
    data = folder.read_json("data.json")
    wanted = Wanted.of(data, resize=resize)
    paths = find_files(files, bad, volumes=wanted.volumes)
    name = strategy or best_strategy(folder)
    backend: Backend = "looped" if len(paths) < _MANY else "auto"
    network = load(run, name, trust=trust, backend=backend)
    rows = _predict(network, wanted, data["classes"], paths, batch_size, bad)
    if not rows:
        for reason in bad[1:]:
            _name(reason)
        raise DataError(bad[0])
    if as_json:
        about = {"run": str(run), "strategy": name, "classes": data["classes"], "resized": len(wanted.resized)}
        about |= {} if network.thresholds is None else {"thresholds": list(network.thresholds)}
        print_json(about | {"predictions": rows})
    elif form is Format.JSON:
        print_json(rows)
    elif form is Format.CSV:
        _write_csv(rows, data["classes"])
    else:
        print_table(_table(rows, name))
    if network.thresholds:
        print(f"note: {printable(_said(network.thresholds, data['classes']))}", file=sys.stderr)
    if wanted.note:
        print(f"note: {wanted.note}", file=sys.stderr)
    for reason in bad:
        _name(reason)
    if bad:
        raise typer.Exit(1)


def _said(thresholds: Sequence[float], classes: Sequence[str]) -> str:
    """Say that the most probable class need not be decided for."""
    if len(classes) == 2:
        return f"decides for {classes[1]} above a probability of {thresholds[1]:.3f}, as chosen in the training"
    return "decides by the thresholds of the classes that were chosen in the training: --json shows them"


def _name(reason: str) -> None:
    print(f"error: {printable(reason)}", file=sys.stderr)


def _predict(
    network: CNNDNN, wanted: Wanted, classes: Sequence[str], paths: Sequence[Path], batch_size: int, bad: list[str]
) -> list[dict[str, Any]]:
    import torch

    from ddcnn.cli.inputs import read_batches

    rows: list[dict[str, Any]] = []
    for names, images in read_batches(paths, wanted, batch_size, bad):
        with torch.inference_mode():
            local, handed = network.said(torch.from_numpy(images))
            scores = network.decide(handed)
        for name, p, k, votes in zip(names, scores.softmax(1), network.decided(scores), local, strict=True):
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

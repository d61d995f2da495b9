"""`ddcnn explain`: which subdomain said what, what that was worth, and which pixels mattered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.before_pytorch import let_threads_sleep, with_threads
from ddcnn.cli.options import JsonOption, RunArgument, StrategyOption, ThreadsOption, TrustOption
from ddcnn.cli.predict import by_thresholds
from ddcnn.errors import DataError, ExplanationError, nearest
from ddcnn.text import printable

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from ddcnn.explaining import Explanation
    from ddcnn.network import CNNDNN

_AT_ONCE = 8
_MOST_DRAWN = 16
_MADE_BY = "ddcnn explain"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


def explain(
    run: RunArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, volumes (.nii, .nii.gz, folders of DICOM slices), .npy or .npz arrays, or folders of them.",
        ),
    ],
    *,
    strategy: StrategyOption = None,
    target: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class, not the one that is decided for.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PNG", help="Draw heat maps over the images, up to 16.")
    ] = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain decisions: what each subdomain says, what the decision would lose without it, where it looks.

    The strategy that was trained is explained; of a comparison, the best on the validation images, unless you name one.
    Files that cannot be read are named on stderr, the others are explained; the exit code is then 1. Files of another
    size are resized as in training, which is said once.

    \b
    For example:
    ddcnn explain runs/c10 cat.png --out cat-explained.png
    ddcnn explain runs/c10 photos/ --class dog --json
    """  # noqa: D301
    let_threads_sleep()

    from ddcnn.cli.display import print_json, print_path, print_table
    from ddcnn.cli.inputs import Wanted, end_with, find_files, read_batches
    from ddcnn.data.images import bombs_are_errors
    from ddcnn.runs.folder import RunFolder
    from ddcnn.runs.networks import best_strategy, load
    from ddcnn.runs.run_validation import read_data

    folder = RunFolder(run)
    folder.manifest()  # that there is a run is the first thing to know
    data = read_data(folder, trust=trust)
    classes, wanted = data["classes"], Wanted.of(data)
    bad: list[str] = []
    paths = find_files(files, bad, volumes=wanted.volumes)
    network = load(run, strategy, trust=trust)
    network.input = network.input_check = None  # each file is looked at, and arranged, when it is read
    chosen = None if target is None else _index(target, classes)
    if out is not None:
        _check_drawing(out, len(paths))
    with bombs_are_errors(), with_threads(threads):
        batches = read_batches(paths, wanted, _AT_ONCE, bad)
        rows, drawn, notes = _explain(network, batches, chosen, classes, draw=out is not None)
    name = strategy or best_strategy(folder)
    if not rows:
        end_with(bad, wanted, answered=False)
    if out is not None:
        _draw(out, drawn, rows, network)
        if len(rows) > _MOST_DRAWN:
            notes.append(f"{out} has the first {_MOST_DRAWN} of {len(rows)} images")
    if network.thresholds:
        notes.append(by_thresholds(network.thresholds, classes))
    if as_json:
        print_json({"strategy": name, "images": rows, "notes": notes})
    else:
        for row in rows:
            print_table(_table(row, name))
        for note in notes:
            print(printable(note))
        if out is not None:
            print_path("heat maps", out)
    end_with(bad, wanted, answered=True)


def _explain(
    network: CNNDNN,
    batches: Iterator[tuple[list[str], np.ndarray]],
    target: int | None,
    classes: Sequence[str],
    *,
    draw: bool,
) -> tuple[list[dict[str, Any]], list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Return a row of each image; images with their heat maps, if they are to be drawn; and notes, each once."""
    rows: list[dict[str, Any]] = []
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    notes: dict[str, None] = {}
    for names, images in batches:
        found = network.explain(images, target)
        rows += _rows(found, names, classes, network)
        notes |= dict.fromkeys(found.notes)
        if draw and found.heat_map is not None:
            drawn += list(zip(images, found.heat_map.numpy(), strict=True))
    return rows, drawn, list(notes)


def _index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise DataError(f"the run has no class {name!r}: {nearest(name, classes)}")
    return list(classes).index(name)


def _rows(
    found: Explanation, names: Sequence[str], classes: Sequence[str], network: CNNDNN
) -> Iterator[dict[str, Any]]:
    """Yield what is printed of each image, ready for JSON."""
    decisions = network.decided(found.probabilities.log()).tolist()
    for b, (name, decided) in enumerate(zip(names, decisions, strict=True)):
        k, p = int(found.target[b]), found.probabilities[b].tolist()
        yield {
            "file": name,
            "class": classes[decided],
            "probability": round(p[decided], 6),
            "explained": classes[k],
            "explained_probability": round(p[k], 6),
            "subdomains": [_subdomain(found, b, n, k, classes, network) for n in range(network.local_cnns.members)],
            "brightest": _brightest(found, b),
        }


def _subdomain(found: Explanation, b: int, n: int, k: int, classes: Sequence[str], network: CNNDNN) -> dict[str, Any]:
    one = network.local_cnns.subdomains[n]
    row: dict[str, Any] = {"index": one.index, "box": [list(pair) for pair in one.box]}
    if n in network.missing:
        return row | dict.fromkeys(("class", "probability", "for_explained", "ablation", "attribution"))
    p = found.local_probabilities[b, n].tolist()
    says = max(range(len(p)), key=p.__getitem__)
    lost = float(found.ablation[b, n])
    added = None if found.attribution is None else round(float(found.attribution[b, n]), 6)
    return row | {
        "class": classes[says],
        "probability": round(p[says], 6),
        "for_explained": round(p[k], 6),
        "ablation": None if math.isnan(lost) else round(lost, 6),
        "attribution": added,
    }


def _brightest(found: Explanation, b: int) -> list[int] | None:
    """Return the pixel that speaks most for the class."""
    import numpy as np

    if found.heat_map is None:
        return None
    heat = found.heat_map[b].numpy()
    return [int(i) for i in np.unravel_index(int(heat.argmax()), heat.shape)] if heat.max() > 0 else None


def _table(row: dict[str, Any], strategy: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    said = f"{row['class']} {row['probability']:.3f}"
    if row["explained"] != row["class"]:
        said += f"; explained: {row['explained']} {row['explained_probability']:.3f}"
    table = Table("subdomain", "says", title=Text(printable(f"{row['file']}: {said}")), title_justify="left")
    for name in ("probability", Text(printable(f"for {row['explained']}")), "lost without it", "attribution"):
        table.add_column(name, justify="right")
    for part in row["subdomains"]:
        if part["class"] is None:
            table.add_row(str(part["index"]), "missing", *[""] * 4)
            continue
        signed = ("-" if part[key] is None else f"{part[key]:+.3f}" for key in ("ablation", "attribution"))
        plain = (f"{part[key]:.3f}" for key in ("probability", "for_explained"))
        table.add_row(str(part["index"]), Text(printable(part["class"])), *plain, *signed)
    where = "" if row["brightest"] is None else f"; brightest pixel {', '.join(map(str, row['brightest']))}"
    table.caption = Text(printable(f"strategy: {strategy}{where}"))
    return table


def _check_drawing(out: Path, files: int) -> None:
    from ddcnn.cli.figures import check_figure

    if files > _MOST_DRAWN:
        raise ExplanationError(f"--out draws up to {_MOST_DRAWN} images, got {files}; give fewer")
    check_figure(out, "--out", _MADE_BY, ExplanationError)


def _draw(
    out: Path, drawn: Sequence[tuple[np.ndarray, np.ndarray]], rows: Sequence[dict[str, Any]], network: CNNDNN
) -> None:
    from ddcnn.cli.figures import write_figure
    from ddcnn.report.heat_map import draw_heat_maps, shown_boxes
    from ddcnn.report.svg import style

    if not drawn:
        raise ExplanationError("there is no heat map to draw: no local CNN has a convolution; leave out --out")
    most = slice(_MOST_DRAWN)
    titles = [
        printable(f"{Path(row['file']).name}: {row['explained']} {row['explained_probability']:.2f}") for row in rows
    ]
    boxes = shown_boxes(network.local_cnns.subdomains)
    images, maps = zip(*drawn[most], strict=True)
    figure = draw_heat_maps(images, maps, titles[most], boxes)
    with style():
        write_figure(figure, out, _MADE_BY, ExplanationError)

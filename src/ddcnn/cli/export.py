"""`ddcnn export`: a trained network as a file that runs without ddcnn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddcnn.cli.options import JsonOption, RunArgument, StrategyOption, TrustOption
from ddcnn.text import printable, size_text


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    run: RunArgument,
    *,
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", help="onnx, torch-export, or safetensors (parameters alone).")
    ] = "onnx",
    strategy: StrategyOption = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="A folder: each local CNN, and the aggregation, in a file of its own.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: named after run and strategy.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that was exported before.")] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network, from raw pixels to probabilities, to a file that runs without ddcnn.

    The file is compared with the network, on test images if they are at hand, before it is written.

    \b
    For example:
    ddcnn export runs/c10
    ddcnn export runs/c10 --format torch-export --strategy transfer --out c10.pt2
    ddcnn export runs/c10 --parts --out served
    """  # noqa: D301
    from ddcnn.cli.display import print_json, print_path
    from ddcnn.exporting import export as write

    found = write(run, out, format=form, strategy=strategy, parts=parts, trust=trust, force=force)
    if as_json:
        facts: dict[str, Any] = {"path": str(found.path), "format": form, "strategy": found.strategy}
        checked = {"checked_on": found.checked_on, "difference": found.difference}
        print_json(facts | {"files": dict(found.files)} | checked)
        return
    files, size = len(found.files), size_text(sum(found.files.values()))
    print_path(f"{found.strategy}, {files} file{'s' * (files > 1)}, {size}", found.path)
    print(printable(f"checked on {found.checked_on}: probabilities differ by at most {found.difference:.1g}"))

"""`export`: a trained run -> files that are checked, then written whole or not at all."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ddcnn.atomic import advice, sync_folder, write_atomic
from ddcnn.errors import ExportError, in_one_line
from ddcnn.exporting.check import largest_difference, sample_of
from ddcnn.exporting.formats import FORMATS, Format
from ddcnn.exporting.pieces import Assembly, apart, together
from ddcnn.network import CNNDNN
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import best_strategy, load
from ddcnn.runs.run_validation import read_data

PARTS = "parts.json"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path
        The file, or with ``parts`` the folder.
    files
        Names and sizes in bytes.
    strategy
        Which network of the run it is.
    checked_on
        The images that files and network were compared on.
    difference
        The largest difference of a probability on them.
    """

    path: Path
    files: Mapping[str, int]
    strategy: str
    checked_on: str
    difference: float


def export(
    run: Path | str,
    out: Path | str | None = None,
    *,
    format: str = "onnx",
    strategy: str | None = None,
    parts: bool = False,
    trust: bool = False,
    force: bool = False,
) -> Exported:
    """Write a trained network to a file that runs without ddcnn: raw images in, cutting and normalisation inside.

    Its input is ``images`` (B, C, *S), B any number, of the type and range of the training; its outputs are ``scores``
    (B, K), ``probabilities`` (B, K) and ``local_probabilities`` (B, N, K). Class names, input, subdomains, and decision
    thresholds where they were chosen, are its metadata. What the file answers is compared with the network before it is
    written.

    Parameters
    ----------
    run
        The folder of a run.
    out
        The file, or with ``parts`` the folder, which is made; None: named after run and strategy, in the present one.
    format
        ``"onnx"``, ``"torch-export"``, or ``"safetensors"`` (parameters without code).
    strategy, trust
        As in `ddcnn.load`; data in a folder that a run names are used for the check only if it is trusted.
    parts
        One file per local CNN, from the raw pixels of its box to what it hands over, and one for the aggregation.
        ``parts.json`` says which is which.
    force
        Replace a file that was exported in this format. Nothing else is replaced, and no folder.

    Raises
    ------
    ExportError
        A package is missing, the network cannot be exported in this format, the file would answer something else, or
        it is in the way.
    RunError
        The run cannot be read.
    """
    form = FORMATS.find(format)
    folder = RunFolder(run)
    network = load(run, strategy, trust=trust, backend="looped")
    name = strategy or best_strategy(folder)
    kind = "-parts" if parts else form.suffix
    target = Path(out) if out is not None else Path(f"{folder.path.resolve().name}-{name}{kind}")
    _check_free(target, form, parts=parts, force=force)
    sample = sample_of(folder, read_data(folder, trust=trust), trust=trust)
    assembly = (apart if parts else together)(network, sample.images)
    facts = _facts(folder, network, name, trust=trust)
    contents = _contents(assembly, form, facts, name)
    difference = largest_difference(network, assembly, contents, form, sample.images)
    names = [piece.name + form.suffix for piece in assembly.pieces] if parts else [target.name]
    files = dict(zip(names, contents, strict=True))
    if parts:
        files[PARTS] = _index(assembly, form, facts)
    _write(target, files, parts=parts)
    return Exported(target, {key: len(value) for key, value in files.items()}, name, sample.what, difference)


def _contents(assembly: Assembly, form: Format, facts: Mapping[str, Any], name: str) -> list[bytes]:
    as_text = {key: json.dumps(value) for key, value in facts.items()}
    contents = []
    for piece, example in zip(assembly.pieces, assembly.examples, strict=True):
        with torch.no_grad():
            piece(example)  # what a network finds out on its first call is no part of the graph
        try:
            contents.append(form.write(piece, example, as_text | {"piece": json.dumps(piece.name)}))
        except ExportError:
            raise
        except Exception as error:  # whatever an exporter raises of operators that it does not know
            reason = in_one_line(_first_cause(error))
            raise ExportError(f"{name} cannot be written in this format: {reason}; try another --format") from None
    return contents


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _facts(folder: RunFolder, network: CNNDNN, name: str, *, trust: bool) -> dict[str, Any]:
    """Return what whoever serves the network must know."""
    data = read_data(folder, trust=trust)
    channels, *size = data["image_shape"]
    shape = {"dtype": data["image_type"], "channels": channels, "size": size, "classes": data["classes"]}
    return {
        "ddcnn": version("ddcnn"),
        "strategy": name,
        "classes": data["classes"],
        "input": data.get("input", shape),
        "subdomains": [
            {"index": one.index, "box": one.box, "shape": one.shape, "missing": n in network.missing}
            for n, one in enumerate(network.local_cnns.subdomains)
        ],
        **({} if network.thresholds is None else {"thresholds": list(network.thresholds)}),
    }


def _index(assembly: Assembly, form: Format, facts: Mapping[str, Any]) -> bytes:
    """Return ``parts.json``: the facts, and for each file its input and outputs."""
    pieces = [
        {
            "file": piece.name + form.suffix,
            "input": {"name": piece.input, "shape": ["batch", *example.shape[1:]]},
            "outputs": list(piece.outputs),
        }
        for piece, example in zip(assembly.pieces, assembly.examples, strict=True)
    ]
    return (json.dumps({**facts, "parts": pieces}, indent=1) + "\n").encode()


def _check_free(target: Path, form: Format, *, parts: bool, force: bool) -> None:
    if not target.parent.is_dir():
        raise ExportError(f"{target.parent} is not a folder; make it, or choose another --out")
    if parts and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ExportError(f"{target} exists; choose another --out")
    if not parts and target.is_dir():
        raise ExportError(f"{target} is a folder; name a file with --out")
    if not parts and target.exists() and not force:
        raise ExportError(f"{target} exists; choose another --out, or --force to replace it")
    if target.exists() and not parts and not form.wrote(target):
        raise ExportError(f"{target} was not exported in this format and is not replaced; choose another --out")


def _write(target: Path, files: Mapping[str, bytes], *, parts: bool) -> None:
    try:
        if parts:
            _write_folder(target, files)
        else:
            (content,) = files.values()
            write_atomic(target, content)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {advice(error)}") from None


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        for name, content in files.items():
            write_atomic(temporary / name, content)
        temporary.replace(target)  # as it is, or empty
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)

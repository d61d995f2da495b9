"""torch.export: the graph and its parameters, run by PyTorch without the code that made them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddcnn.exporting.pieces import Piece
from ddcnn.exporting.quietly import quietly

FACTS = "facts.json"


def write(piece: Piece, example: Tensor, facts: Mapping[str, str]) -> bytes:
    """Return a .pt2 file, whose first axis is of any length, with the facts as ``facts.json`` in it."""
    with quietly():
        program = torch.export.export(piece, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={FACTS: json.dumps(dict(facts))})
    return file.getvalue()


def metadata(path: Path) -> Mapping[str, Any]:
    """Return the facts of a file, none of whose code is run."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(f"extra/{FACTS}"))
        found: dict[str, Any] = json.loads(archive.read(name))
        return found


def read(content: bytes, piece: Piece) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return what computes the outputs of a file."""
    with quietly():
        module = torch.export.load(io.BytesIO(content)).module()

    def run(x: Tensor) -> dict[str, Tensor]:
        values: Any = module(x)
        values = (values,) if isinstance(values, Tensor) else values
        return dict(zip(piece.outputs, values, strict=True))

    return run

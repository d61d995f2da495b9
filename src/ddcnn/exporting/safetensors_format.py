"""safetensors: the parameters alone, by the names that each local CNN has alone, with the facts as metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from ddcnn.exporting.pieces import Piece


def write(piece: Piece, example: Tensor, facts: Mapping[str, str]) -> bytes:  # noqa: ARG001 - there is no graph
    """Return a safetensors file."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in piece.saved().items()}
    return save(tensors, metadata=dict(facts))


def metadata(path: Path) -> Mapping[str, Any]:
    """Return the facts of a file."""
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def read(content: bytes, piece: Piece) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return what computes the outputs with the parameters of a file; those of the piece are overwritten."""
    with torch.no_grad():
        for value in piece.saved().values():  # what the file lacks must not go unseen
            value.fill_(torch.nan if value.is_floating_point() else -1)
    piece.restore(load(content))

    def run(x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            values: Any = piece(x)
        values = (values,) if isinstance(values, Tensor) else values
        return dict(zip(piece.outputs, values, strict=True))

    return run

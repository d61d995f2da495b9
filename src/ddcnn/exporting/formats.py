"""Formats of exported files by name, each with all that others ask about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ddcnn.errors import ExportError
from ddcnn.exporting import onnx_format, safetensors_format, torch_export_format
from ddcnn.exporting.pieces import Answers, Piece
from ddcnn.registry import Registry


@dataclass(frozen=True)
class Format:
    """What is known of a format.

    Attributes
    ----------
    suffix
        Of its files.
    sentence
        What it is for.
    write
        (a piece, an input with more than one sample, facts by name as text) -> the content of its file.
    read
        (that content, a copy of the piece) -> a function from an input to outputs by name, computed by what is in the
        file: it is what proves the file, before it is written.
    """

    suffix: str
    sentence: str
    write: Callable[[Piece, Tensor, Mapping[str, str]], bytes]
    read: Callable[[bytes, Piece], Answers]


def _adapted(name: str, found: Any) -> Format:
    if not isinstance(found, Format):
        raise ExportError(f"format {name!r} is a {type(found).__name__}, not a Format")
    return found


FORMATS: Registry[Format] = Registry(
    "format",
    ExportError,
    {
        "onnx": Format(".onnx", "Runs with ONNX Runtime, in any language.", onnx_format.write, onnx_format.read),
        "torch-export": Format(".pt2", "Runs with PyTorch alone.", torch_export_format.write, torch_export_format.read),
        "safetensors": Format(
            ".safetensors", "Parameters without code.", safetensors_format.write, safetensors_format.read
        ),
    },
    adapt=_adapted,
)

"""Formats of exported files by name, each with all that others ask about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddcnn.data.files import open_regular
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
    metadata
        (a file) -> its metadata, in which the facts are; whatever it raises, it is not of this format.
    """

    suffix: str
    sentence: str
    write: Callable[[Piece, Tensor, Mapping[str, str]], bytes]
    read: Callable[[bytes, Piece], Answers]
    metadata: Callable[[Path], Mapping[str, Any]]

    def wrote(self, path: Path) -> bool:
        """Tell whether a file is one that was exported in this format."""
        try:
            open_regular(path).close()
            return {"ddcnn", "strategy", "classes"} <= set(self.metadata(path))
        except Exception:  # of whatever it is instead
            return False


FORMATS: Registry[Format] = Registry(
    "format",
    ExportError,
    {
        "onnx": Format(
            ".onnx",
            "Runs with ONNX Runtime, in any language.",
            onnx_format.write,
            onnx_format.read,
            onnx_format.metadata,
        ),
        "torch-export": Format(
            ".pt2",
            "Runs with PyTorch alone.",
            torch_export_format.write,
            torch_export_format.read,
            torch_export_format.metadata,
        ),
        "safetensors": Format(
            ".safetensors",
            "Parameters without code.",
            safetensors_format.write,
            safetensors_format.read,
            safetensors_format.metadata,
        ),
    },
    of=Format,
)

"""ONNX: written by PyTorch, checked and run by ONNX Runtime."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from ddcnn.data.files import open_regular
from ddcnn.errors import ExportError, in_one_line
from ddcnn.exporting.pieces import NetworkPiece, Piece
from ddcnn.exporting.quietly import quietly
from ddcnn.extras import needed
from ddcnn.text import size_text

_MOST = 2**31  # bytes of a protocol buffer


def write(piece: Piece, example: Tensor, facts: Mapping[str, str]) -> bytes:
    """Return an ONNX file with one input, whose first axis is of any length, and facts as metadata."""
    onnx = _package("onnx")
    _package("onnxscript")
    size = sum(value.numel() * value.element_size() for value in piece.saved().values())
    if size >= _MOST:
        raise ExportError(
            f"{piece.name} has {size_text(size)}, an ONNX file at most 2 GiB; use --parts, or torch-export"
        )
    with quietly():
        program: Any = torch.onnx.export(
            _with_known_layers(piece),
            (example,),
            input_names=[piece.input],
            output_names=list(piece.outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


class _AveragePool3d(nn.Module):
    """`nn.AdaptiveAvgPool3d`, which ONNX lacks: rows and columns first, then depth; the mean is the same."""

    def __init__(self, pool: nn.AdaptiveAvgPool3d) -> None:
        super().__init__()
        size = pool.output_size
        self.size = tuple(size) if isinstance(size, Sequence) else (size,) * 3

    def forward(self, x: Shaped[Tensor, "B C D H W"]) -> Shaped[Tensor, "B C d h w"]:
        """Return the means."""
        _, C, D, H, W = x.shape
        d, h, w = (given if wanted is None else wanted for wanted, given in zip(self.size, (D, H, W), strict=True))
        planes = F.adaptive_avg_pool2d(x.flatten(1, 2), (h, w)).unflatten(1, (C, D)).flatten(3)
        means: Tensor = F.adaptive_avg_pool2d(planes, (d, h * w)).unflatten(3, (h, w))
        return means


def _with_known_layers(piece: Piece) -> Piece:
    """Return the piece, or a copy of it where ONNX lacks a layer that others can stand in for."""
    if not any(isinstance(module, nn.AdaptiveAvgPool3d) for module in piece.modules()):
        return piece
    piece = copy.deepcopy(piece)
    for parent in list(piece.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.AdaptiveAvgPool3d):
                setattr(parent, name, _AveragePool3d(module))
    return piece


def read(content: bytes, piece: Piece) -> Callable[[Tensor], dict[str, Tensor]]:  # noqa: ARG001 - the file has all of it
    """Return what computes the outputs of a file."""
    session = _session(content)
    return lambda x: _run(session, x)


def metadata(path: Path) -> Mapping[str, Any]:
    """Return the facts of a file."""
    return {one.key: one.value for one in _package("onnx").load(path, load_external_data=False).metadata_props}


class _Subdomain(BaseModel):
    missing: bool


class _Input(BaseModel):
    model_config = ConfigDict(extra="allow")

    channels: int
    size: list[int]


class _Facts(BaseModel):
    """What a file must say, so that its answers can be counted."""

    model_config = ConfigDict(extra="allow", strict=True)

    strategy: str
    classes: Annotated[list[str], Field(min_length=2)]
    input: _Input
    subdomains: Annotated[list[_Subdomain], Field(min_length=1)]
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] | None = None

    @model_validator(mode="after")
    def _a_threshold_per_class(self) -> _Facts:
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes")
        return self


class OnnxNetwork:
    """A whole network in an ONNX file, as `ddcnn.export` wrote it.

    Parameters
    ----------
    file
        The file.

    Attributes
    ----------
    facts
        Its metadata: ``classes`` (list), ``input``, ``strategy``, ``subdomains`` (list of objects).
    missing
        Subdomains without a local CNN.
    thresholds
        By which its network decides; None: for the most probable class.

    Raises
    ------
    ExportError
        It cannot be read, or is of another kind.
    """

    def __init__(self, file: Path | str) -> None:
        path = Path(file)
        try:
            with open_regular(path) as content:
                self._session = _session(content.read())
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror}; give a file of ddcnn export") from None
        found = self._session.get_modelmeta().custom_metadata_map
        outputs = [one.name for one in self._session.get_outputs()]
        if "classes" not in found or outputs != list(NetworkPiece.outputs):
            raise ExportError(f"{path} is no whole network of ddcnn export; give one that was exported without --parts")
        try:
            self.facts = {name: json.loads(value) for name, value in found.items()}
            facts = _Facts.model_validate(self.facts)
        except (ValueError, RecursionError) as error:  # of JSON, or of pydantic
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else in_one_line(error)
            raise ExportError(f"{path}: its metadata cannot be used: {reason}; export the run again") from None
        self.path, self._count = path, (len(facts.subdomains), len(facts.classes))
        self.thresholds = None if facts.thresholds is None else tuple(facts.thresholds)
        self.missing = tuple(n for n, row in enumerate(facts.subdomains) if row.missing)

    def scores(self, images: Shaped[Tensor, "B C *S"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B N K"]]:
        """Return global scores and local probabilities."""
        found, (N, K) = _run(self._session, images), self._count
        scores, local = found["scores"], found["local_probabilities"]
        if scores.shape != (len(images), K) or local.shape != (len(images), N, K):
            raise ExportError(
                f"{self.path} should answer scores of shape {(len(images), K)} and local probabilities of "
                f"{(len(images), N, K)}, as its metadata say, got {tuple(scores.shape)} and {tuple(local.shape)}; "
                "export the run again"
            )
        return scores, local


def _session(content: bytes) -> Any:
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class of its own for each kind of damage
        raise ExportError(f"ONNX Runtime cannot load this: {in_one_line(error)}") from None


def _run(session: Any, x: Tensor) -> dict[str, Tensor]:
    names = [one.name for one in session.get_outputs()]
    given = session.get_inputs()[0]
    try:
        values = session.run(names, {given.name: np.ascontiguousarray(x.detach().cpu().numpy())})
    except Exception as error:  # the runtime has a class of its own for each fault
        raise ExportError(f"ONNX Runtime cannot run this on images {tuple(x.shape)}: {in_one_line(error)}") from None
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def _package(name: str) -> Any:
    with needed("ONNX needs more packages", "export", ExportError):
        return importlib.import_module(name)

"""What the files of a run must hold, before anything is made of them: a run may come from a stranger."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ddcnn.aggregation import Average, build_aggregation
from ddcnn.config import Config, mapping_of
from ddcnn.decomposition import Grid
from ddcnn.errors import ConfigError, ModelError, RunError, in_one_line
from ddcnn.models import build, width_rule
from ddcnn.runs.folder import RunFolder

AGGREGATED = {"average": "average", "vote": "vote", "cnn-dnn": "dense"}
WHOLE = ("global", "coherent", "transfer")

_MOST_PIXELS = 2**31  # times channels: what an image may have in a run that is not trusted
_MOST_SUBDOMAINS = 2**16
_MOST_STANDING_IN = 2**28  # parameters of local CNNs that are missing, and have no file to show for it
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}

_PLACE = re.compile(r"(?:locals\.([0-9]{1,9})|aggregation)\.(.+)")

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # by name of a tensor


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should be printable")
    return text


_Count = Annotated[int, Field(ge=1, lt=2**31)]
_Scale = Annotated[float, Field(gt=0)]


class _Data(BaseModel):
    """The part of ``data.json`` that a network is made from."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    classes: Annotated[list[Annotated[str, AfterValidator(_printable)]], Field(min_length=2)]
    image_shape: Annotated[list[_Count], Field(min_length=3, max_length=4)]
    image_type: Literal["uint8", "float32"]
    mean: list[float]
    std: list[_Scale]


def read_config(folder: RunFolder) -> Config:
    """Read the configuration of a run.

    Raises
    ------
    RunError
        It is no valid configuration.
    """
    path = folder.path / "config.yaml"
    try:
        return Config.parse(mapping_of(folder.read_text("config.yaml"), path))
    except ConfigError as error:
        raise RunError(f"{path} cannot be used: {str(error).removeprefix(f'{path} ')}") from None


def read_data(folder: RunFolder, *, trust: bool) -> dict[str, Any]:
    """Read what the images of a run were.

    Raises
    ------
    RunError
        A field is missing or of another type, or the images are larger than those of a run that is not trusted may be.
    """
    path = folder.path / "data.json"
    values = folder.read_json("data.json")
    try:
        data = _Data.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(f"{path}: {place} cannot be used: {first['msg']}; train again") from None
    if not len(data.mean) == len(data.std) == data.image_shape[0]:
        raise RunError(
            f"{path}: mean and std should have one number for each of {data.image_shape[0]} channels, got "
            f"{len(data.mean)} and {len(data.std)}; train again"
        )
    if math.prod(data.image_shape) > _MOST_PIXELS and not trust:
        raise RunError(
            f"{path}: images of {'x'.join(map(str, data.image_shape))} values are larger than {_MOST_PIXELS:,}, the "
            f"most of a run that is not trusted; if you trust it, say so: trust=True, or --trust"
        )
    return values


def untrusted(folder: RunFolder, model: str) -> str:
    """Return why a network of the user's own is not made."""
    module, _, function = model.partition(":")
    return (
        f"{folder.path / 'config.yaml'} names a network that is not one of ddcnn: to load it would import the module "
        f"{module!r} and call {function!r} of it, which runs whatever code it holds; if you trust it and the run, say "
        f"so: trust=True, or --trust"
    )


def geometry(config: Config, image_size: tuple[int, ...], strategy: str) -> tuple[Grid, float]:
    """Return where a strategy cuts, and the width factor of its local CNNs."""
    if strategy == "global":
        return Grid((1,) * len(image_size)), 1.0
    grid = Grid(config.decomposition.grid, overlap=config.decomposition.overlap)
    return grid, config.model.width_factor or width_rule(len(grid))


def check_parameters(
    folder: RunFolder,
    config: Config,
    data: dict[str, Any],
    strategy: str,
    *,
    missing: Collection[int] = (),
    trust: bool = False,
) -> None:
    """Compare the headers of a strategy's files with what its network needs: names, types and shapes of tensors.

    The network is made without memory (on the ``meta`` device), so that no number of channels, classes, subdomains or
    hidden units in ``config.yaml`` costs more than the files have. Subdomains that are ``missing`` have no file; what
    stands in for them may not be large, unless the run is trusted.

    Raises
    ------
    RunError
        A file is missing, or holds something else.
    """
    channels, *size = data["image_shape"]
    try:
        if (count := math.prod(config.decomposition.grid)) > _MOST_SUBDOMAINS:
            raise ModelError(f"a grid of {count:,} subdomains is too large, at most {_MOST_SUBDOMAINS:,} are read")
        grid, width = geometry(config, tuple(size), strategy)
        parts = _parts(folder, strategy, [n for n in range(len(grid)) if n not in missing])
        needed: dict[tuple[int, ...], Shapes] = {}
        standing_in = 0
        for n, subdomain in enumerate(grid.subdomains(size)):
            if (shape := subdomain.shape) not in needed:
                with torch.device("meta"):
                    needed[shape] = _shapes(_local_cnn(config, (channels, *shape), len(data["classes"]), width))
            if n not in missing:
                _compare(folder, *parts[n], needed[shape])
                continue
            standing_in += sum(math.prod(one) for _, one in needed[shape].values())
            if standing_in > _MOST_STANDING_IN and not trust:
                raise ModelError(
                    f"{len(missing)} missing local CNNs of more than {_MOST_STANDING_IN:,} parameters are refused; if "
                    f"you trust the run, say so: trust=True, or --trust"
                )
        with torch.device("meta"):
            last = _shapes(_aggregation(config, strategy, len(grid), len(data["classes"])))
    except (RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:  # a network says anything
        if isinstance(error, RunError):
            raise
        reason = in_one_line(error)
        raise RunError(f"{folder.path}: config.yaml describes no network for these images: {reason}") from None
    _compare(folder, *parts[-1], last)


def _local_cnn(config: Config, shape: tuple[int, ...], classes: int, width: float) -> nn.Module:
    return build(config.model.name, shape[0], classes, shape[1:], width=width, options=config.model.options)


def _aggregation(config: Config, strategy: str, subdomains: int, classes: int) -> nn.Module:
    if strategy == "global":
        return Average()
    return build_aggregation(AGGREGATED.get(strategy, config.aggregation.name), subdomains, classes, config.aggregation)


def _shapes(module: nn.Module) -> Shapes:
    return {
        name: (_TYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        for name, value in module.state_dict().items()
    }


def _parts(folder: RunFolder, strategy: str, subdomains: Sequence[int]) -> dict[int, tuple[str, Shapes]]:
    """Return file and shapes of the local CNN of each subdomain, and under -1 of the aggregation."""
    if strategy in AGGREGATED:
        files = {n: f"locals/{n}.safetensors" for n in subdomains}
        files |= {-1: "aggregation.safetensors"} if AGGREGATED[strategy] == "dense" else {}
        return {-1: ("", {})} | {n: (file, folder.read_shapes(file)) for n, file in files.items()}
    file = f"{strategy}.safetensors"
    parts: dict[int, tuple[str, Shapes]] = {n: (file, {}) for n in (*subdomains, -1)}
    for name, shape in folder.read_shapes(file).items():
        found = _PLACE.fullmatch(name)
        n = int(found[1] or -1) if found else None
        if found is None or n not in parts:
            raise RunError(f"{folder.path / file} holds {name!r:.80}, which is no part of {strategy}; train again")
        parts[n][1][found[2]] = shape
    return parts


def _compare(folder: RunFolder, file: str, found: Shapes, needed: Shapes) -> None:
    for name in sorted(found.keys() | needed.keys()):
        if found.get(name) != needed.get(name):
            wanted, got = (_in_words(shapes.get(name)) for shapes in (needed, found))
            raise RunError(
                f"{folder.path / file} does not fit config.yaml and data.json: of {name!r:.80} expected {wanted}, got "
                f"{got}; copy the run anew, or train again"
            )


def _in_words(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[0]} {tensor[1]}"

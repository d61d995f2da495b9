"""What the files of a run must hold, before anything is made of them: a run may come from a stranger."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.config import Config, mapping_of
from ddcnn.decomposition import DECOMPOSITIONS
from ddcnn.errors import ConfigError, ModelError, RunError, in_one_line
from ddcnn.models import MODELS
from ddcnn.network_factory import NetworkFactory
from ddcnn.registry import code_digest
from ddcnn.runs.folder import RunFolder
from ddcnn.text import name_fault

_MOST_PIXELS = 2**31  # times channels: what an image may have in a run that is not trusted
_MOST_SUBDOMAINS = 2**16
_MOST_MASKED = 2**30  # pixels of all masks, which are made before any file is read
_MOST_STANDING_IN = 2**28  # parameters of local CNNs that are missing, and have no file to show for it
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}

_OWNER = re.compile(r"(?:locals\.([0-9]{1,9})|aggregation)\.(.+)")

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # by name of a tensor


def _named(text: str) -> str:
    if fault := name_fault(text):
        raise ValueError(f"is no name of a class: it {fault}")
    return text


_Count = Annotated[int, Field(ge=1, lt=2**31)]
_Scale = Annotated[float, Field(gt=0)]


class SavedNetwork(BaseModel):
    """What a network of a run consists of.

    Attributes
    ----------
    whole_image
        It is the global CNN; else it has a local CNN per subdomain.
    aggregation
        Name in the registry, or ``module:function``.
    shares_local_cnns
        Its local CNNs lie in ``locals/``; else the whole network is one file, ``<name>.safetensors``.
    options
        Of the aggregation, such as its number of layers: what the configuration leaves open may be another value in
        another version. None: the run does not say.
    thresholds
        As in `ddcnn.CNNDNN`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    whole_image: bool = False
    aggregation: str
    options: dict[str, int] | None = None
    shares_local_cnns: bool = False
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] | None = None


_BEFORE = {  # of version 0.1, whose runs do not say
    "global": {"whole_image": True, "aggregation": "average"},
    "average": {"aggregation": "average", "shares_local_cnns": True},
    "vote": {"aggregation": "vote", "shares_local_cnns": True},
    "cnn-dnn": {"aggregation": "dense", "shares_local_cnns": True},
}
_OPTIONS_BEFORE = {"attention": {"depth": 2}}  # of runs that do not say


class _Data(BaseModel):
    """The part of ``data.json`` that a network is made from."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    classes: Annotated[list[Annotated[str, AfterValidator(_named)]], Field(min_length=2)]
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


def read_networks(folder: RunFolder, config: Config) -> dict[str, SavedNetwork]:
    """Return what each network of a run consists of, in the order of ``comparison.json``.

    Raises
    ------
    RunError
        The run does not say, or says something else than its results do.
    """
    rows = folder.read_json("comparison.json").get("strategies")
    rows = rows if isinstance(rows, list) else []
    known = [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]
    right = [row["name"] for row in known if isinstance(row.get("validation_accuracy") or 0.0, int | float)]
    whole = {name: {"aggregation": config.aggregation.name} for name in ("coherent", "transfer")}
    described = folder.read_json("networks.json") if folder.has("networks.json") else _BEFORE | whole
    if not rows or len(right) < len(rows) or not set(right) <= set(described):
        raise RunError(
            f"{folder.path / 'comparison.json'} should list strategies ({', '.join(described)}) with their "
            f"validation accuracy; train again"
        )
    try:
        return {name: SavedNetwork.model_validate(described[name]) for name in right}
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise RunError(f"{folder.path / 'networks.json'} cannot be used: {reason}; train again") from None


def with_options(config: Config, saved: SavedNetwork) -> Config:
    """Return the configuration with the options that an aggregation was built with."""
    built = _OPTIONS_BEFORE.get(saved.aggregation, {}) if saved.options is None else saved.options
    if saved.whole_image or saved.aggregation != config.aggregation.name or not built:
        return config
    options = config.aggregation.model_copy(update={"options": built | config.aggregation.options})
    return config.model_copy(update={"aggregation": options})


def foreign_code(config: Config, aggregation: str = "") -> list[str]:
    """Return the names ``module:function`` that have to be imported to build the networks of a run."""
    foreign = [
        (config.model.name, MODELS.is_foreign),
        (config.decomposition.name, DECOMPOSITIONS.is_foreign),
        (aggregation, AGGREGATIONS.is_foreign),
        (config.aggregation.name, AGGREGATIONS.is_foreign),
    ]
    return [name for name, is_foreign in foreign if is_foreign(name)]


def code_digests(config: Config, aggregation: str = "") -> dict[str, str]:
    """Return the SHA-256 of the file of each of them that was imported."""
    found = {name: code_digest(name) for name in foreign_code(config, aggregation)}
    return {name: digest for name, digest in found.items() if digest is not None}


def changed_code(folder: RunFolder, config: Config, aggregation: str) -> list[str]:
    """Return the names ``module:function`` in whose files is something else now than when the run was begun."""
    now = code_digests(config, aggregation)
    known = folder.read_json("environment.json").get("code") if now and folder.has("environment.json") else None
    return [name for name in now if isinstance(known, dict) and known.get(name, now[name]) != now[name]]


def untrusted(folder: RunFolder, name: str) -> str:
    """Return why code of the user's own is not imported."""
    module, _, function = name.partition(":")
    return (
        f"{folder.path / 'config.yaml'} names code that is not of ddcnn: to load it would import the module "
        f"{module!r} and call {function!r} of it, which runs whatever code it holds; if you trust it and the run, say "
        f"so: trust=True, or --trust"
    )


def check_parameters(
    folder: RunFolder,
    factory: NetworkFactory,
    name: str,
    saved: SavedNetwork,
    *,
    missing: Collection[int] = (),
    trust: bool = False,
) -> None:
    """Compare the headers of a network's files with what it needs: names, types and shapes of tensors.

    The network is made without memory (on the ``meta`` device), so that no number of channels, classes, subdomains or
    hidden units in ``config.yaml`` costs more than the files have. Subdomains that are ``missing`` have no file; what
    stands in for them may not be large, unless the run is trusted.

    Raises
    ------
    RunError
        A file is missing, or holds something else.
    """
    factory = replace(factory, device=torch.device("meta"))
    try:
        if (count := len(factory.decomposition)) > _MOST_SUBDOMAINS:
            raise ModelError(
                f"a decomposition into {count:,} subdomains is too large, at most {_MOST_SUBDOMAINS:,} are read"
            )
        masked = not trust and not saved.whole_image and not factory.decomposition.layout
        if masked and (pixels := math.prod(factory.image_size) * count) > _MOST_MASKED:
            raise ModelError(
                f"masks of {pixels:,} pixels in all are too large, at most {_MOST_MASKED:,} are made; if you trust the "
                "run, say so: trust=True, or --trust"
            )
        subdomains = factory.whole_image.subdomains(factory.image_size) if saved.whole_image else factory.subdomains
        present = [n for n in range(len(subdomains)) if n not in missing]
        with torch.device("meta"):
            last = _shapes(
                factory.global_aggregation() if saved.whole_image else factory.aggregation(saved.aggregation)
            )
        files = _files(folder, name, saved, present, aggregation=bool(last))
        needed: dict[tuple[int, ...], Shapes] = {}  # by channels beside those of the image, and shape
        standing_in = 0
        for n, subdomain in enumerate(subdomains):
            if (shape := (subdomain.added_channels, *subdomain.shape)) not in needed:
                with torch.device("meta"):
                    module = factory.global_module() if saved.whole_image else factory.local_module(n)
                    needed[shape] = _shapes(module)
            if n not in missing:
                _compare(folder, *files[n], needed[shape])
                continue
            standing_in += sum(math.prod(one) for _, one in needed[shape].values())
            if standing_in > _MOST_STANDING_IN and not trust:
                raise ModelError(
                    f"{len(missing)} missing local CNNs of more than {_MOST_STANDING_IN:,} parameters are refused; if "
                    f"you trust the run, say so: trust=True, or --trust"
                )
    except (RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:  # a network says anything
        if isinstance(error, RunError):
            raise
        reason = in_one_line(error)
        raise RunError(f"{folder.path}: config.yaml describes no network for these images: {reason}") from None
    _compare(folder, *files[-1], last)


def _shapes(module: nn.Module) -> Shapes:
    return {
        name: (_TYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        for name, value in module.state_dict().items()
    }


def _files(
    folder: RunFolder, name: str, saved: SavedNetwork, subdomains: Sequence[int], *, aggregation: bool
) -> dict[int, tuple[str, Shapes]]:
    """Return file and shapes of the local CNN of each subdomain, and under -1 of the aggregation."""
    if saved.shares_local_cnns:
        files = {n: f"locals/{n}.safetensors" for n in subdomains}
        files |= {-1: AGGREGATIONS.find(saved.aggregation).file} if aggregation else {}
        return {-1: ("", {})} | {n: (file, folder.read_shapes(file)) for n, file in files.items()}
    file = f"{name}.safetensors"
    found: dict[int, tuple[str, Shapes]] = {n: (file, {}) for n in (*subdomains, -1)}
    for key, shape in folder.read_shapes(file).items():
        match = _OWNER.fullmatch(key)
        n = int(match[1] or -1) if match else None
        if match is None or n not in found:
            raise RunError(f"{folder.path / file} holds {key!r:.80}, which is no part of {name}; train again")
        found[n][1][match[2]] = shape
    return found


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

"""What the fields of a configuration hold, and in which forms they may be written."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from ddcnn.errors import ConfigError
from ddcnn.strict import parse_yaml


def _axes(value: Any) -> Any:
    """Read ``"4x4x2"`` and ``4`` as well as ``[4, 4, 2]``; of other text, say which form is meant."""
    parts = _split(value)
    if isinstance(value, str) and not all(re.fullmatch(r"\s*[+-]?[0-9_.]+\s*", part) for part in parts):
        raise PydanticCustomError("axes", "give whole numbers with x between them, such as 2x2 or 4")
    return parts


def _split(value: Any) -> Any:
    if isinstance(value, str):
        value = value.lower().split("x")
    if isinstance(value, Integral):  # NumPy's, too
        value = (int(value),)
    return value


HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path in which ``~`` stands for the home folder: shells do not replace it in ``--out=~/runs``."""


def by_index(value: Any) -> Any:
    """Take an index that is text, as ``--set`` gives it, for the number; of entries for the same index, all count."""
    if not isinstance(value, Mapping):
        return value
    merged: dict[str, Any] = {}
    for index, entry in value.items():
        merged = merge(merged, {str(index): entry})
    return merged


def _bytes(value: Any) -> Any:
    """Read ``"8GB"`` and ``"512 MiB"`` as well as a number of bytes."""
    form = r"([0-9]{1,20}(?:\.[0-9]{1,20})?) *([KMGT]?)(I?)B?"
    found = re.fullmatch(form, value.strip().upper()) if isinstance(value, str) else None
    if not found:
        return value
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix or " "))


def _auto(value: Any) -> Any:
    """Read ``auto`` as None: to be found out once the data are known."""
    return None if value == "auto" else value


def coarse_size(value: Any) -> Any:
    """Read ``16x16``, 16, ``auto`` and true; none, false and null are no coarse level."""
    if isinstance(value, bool):
        return "auto" if value else None
    if value is None or value == "auto":
        return value
    size = _split(value)
    if not isinstance(size, list | tuple) or not all(re.fullmatch(r"[1-9]\d{0,8}", str(n)) for n in size) or not size:
        raise ConfigError(
            f"decomposition.coarse = {shortened(value)} should be a size in pixels, 1 or more, such as 16x16, or auto"
        )
    return tuple(int(n) for n in size)


def threshold(value: Any) -> Any:
    """Read ``f1``, ``youden``, ``cost``, and a probability between 0 and 1."""
    if value is None or value in ("f1", "youden", "cost"):
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise ConfigError(
            f"aggregation.threshold = {shortened(value)} should be f1, youden, cost, or a probability between 0 and 1"
        )
    return number


def names_of_classes(value: Any) -> Any:
    """Take numbers, as YAML reads them, for names of classes."""
    return {str(name): names_of_classes(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def with_options(values: Any) -> Any:
    """Read the name ``voronoi:6,seed=3`` as a name and its options; ``module:function`` stays a name."""
    name = values.get("name") if isinstance(values, Mapping) else None
    word, colon, text = name.partition(":") if isinstance(name, str) else ("", "", "")
    options = values.get("options") or {} if colon else {}
    if not colon or text.isidentifier() or not isinstance(options, Mapping):
        return values
    given = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and number == 0:
            key, value = "parts", part
        if not key.isidentifier() or not value:
            raise ConfigError(
                f"decomposition.name = {shortened(name)} should look like {word}:6 or {word}:2x2,option=value, or be "
                f"module:function"
            )
        given[key] = _option(value)
    if word != "grid":
        return {**values, "name": word, "options": {**options, **given}}
    cuts = {"parts": "grid"}
    return {**values, "name": word, **{cuts.get(key, key): value for key, value in given.items()}}


def _option(text: str) -> Any:
    """Return numbers along axes, ``2x2``, as a list; all else as YAML has it."""
    if re.fullmatch(r"\d{1,9}(x\d{1,9})+", text):
        return [int(n) for n in text.split("x")]
    try:
        return parse_yaml(text)
    except ValueError:
        return text


_AUTO = (BeforeValidator(_auto), PlainSerializer(lambda value: "auto" if value is None else value))
Axes = Annotated[tuple[int, ...], BeforeValidator(_axes)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
PositiveInt = Annotated[int, Field(ge=1)]
MOST_THREADS = 1024  # of a process; a number that the system refuses ends it without a word
AutoInt = Annotated[Annotated[int, Field(ge=1)] | None, *_AUTO]
AutoFloat = Annotated[Annotated[float, Field(gt=0)] | None, *_AUTO]
Resize = Literal["stretch", "crop", "pad"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Threshold = Annotated[Literal["f1", "youden", "cost"] | float, BeforeValidator(threshold)]
Costs = Annotated[dict[str, dict[str, Annotated[float, Field(ge=0)]]], BeforeValidator(names_of_classes)]
Features = Literal["probability", "log", "logit", "penultimate"]
"""What local CNNs hand over to an aggregation; of probabilities it may take the logarithms."""
_LONGEST = 200  # characters of a value in a message


class Section(BaseModel):
    """A part of a configuration: complete, unchangeable, without unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over others, section by section.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}})
    {'a': {'x': 3, 'y': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, BaseModel):
            merged[key] = value.model_dump()
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def shortened(value: Any) -> str:
    """Return a value as one short line, whatever it is."""
    text = reprlib.repr(value) if isinstance(value, list | dict | int) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

"""`reference`: every field of a configuration in words, from the models themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ddcnn.config import Config
from ddcnn.errors import ConfigError, nearest

_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "yes or no", "object": "mapping"}
_FORMS = {  # of what may be written in more ways than its type says
    "decomposition.coarse": "size, such as 16x16, or auto",
    "compute.memory": "bytes, or text such as 8GB",
}


class FieldInWords(NamedTuple):
    """A field of the configuration.

    Attributes
    ----------
    name
        Dotted, such as ``training.lr``.
    kind
        What its values are, in words; or which they are.
    values
        Their range, in words; empty: any.
    default
        As YAML has it, with the default recipe.
    meaning
        One or two sentences.
    """

    name: str
    kind: str
    values: str
    default: Any
    meaning: str


def reference() -> tuple[FieldInWords, ...]:
    """Return all fields, section by section.

    >>> [(one.name, one.kind, one.values, one.default) for one in reference() if one.name == "training.gamma"]
    [('training.gamma', 'number', 'above 0 and below 1', 0.1)]
    """
    schema = Config.model_json_schema()
    return tuple(_fields(schema, schema["$defs"], Config().model_dump(mode="json"), ""))


def find_fields(name: str) -> tuple[FieldInWords, ...]:
    """Return the field of that name, or those of a section; a last part that only one field has is enough.

    Raises
    ------
    ConfigError
        There is none: the nearest names are given.
    """
    known = reference()
    exact = [one for one in known if one.name == name or one.name.startswith(f"{name}.")]
    found = exact or [one for one in known if one.name.rpartition(".")[2] == name]
    if not found:
        names = [one.name for one in known]
        parts = {part for full in names for part in (full.rpartition(".")[0], full.rpartition(".")[2])}
        close = nearest(name, [*names, *filter(None, parts)]).partition(" (one of")[0]
        hint = close if close.startswith("did you mean") else "ddcnn config lists all fields"
        raise ConfigError(f"{name!r} is not a field of the configuration: {hint}")
    return tuple(found)


def meaning_of_section(name: str) -> str:
    """Return what a section is, in one paragraph; no name: the configuration itself.

    >>> meaning_of_section("transfer")
    'The second phase of transfer: the coherent model, started from the local CNNs.'
    """
    section = Config.model_fields[name].annotation if name else Config
    return " ".join((inspect.getdoc(section) or "").partition("\n\n")[0].split()).replace("``", "`")


def _fields(
    schema: Mapping[str, Any], sections: Mapping[str, Any], defaults: Mapping[str, Any], before: str
) -> Iterator[FieldInWords]:
    """Yield the fields of a section, and of those in it."""
    for name, field in schema["properties"].items():
        section = field.get("$ref", "").rpartition("/")[2]
        if section:
            yield from _fields(sections[section], sections, defaults[name], f"{before}{name}.")
            continue
        full, meaning = f"{before}{name}", " ".join(field.get("description", "").split())
        kind, values = _kind(field)
        yield FieldInWords(full, _FORMS.get(full, kind), values, defaults[name], meaning)


def _kind(field: Mapping[str, Any]) -> tuple[str, str]:
    """Return what values are, and their range."""
    if "anyOf" in field:
        (kind, values), *others = [_kind(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys([kind, *(other for other, _ in others)])), values
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum", [field.get("const")]))), ""
    if field.get("type") == "array":
        items = field.get("items") or (field.get("prefixItems") or [{}])[0]
        kind, values = _kind(items) if items else ("text", "")
        return f"{kind}s, such as 4 or 2x2" if kind == "whole number" else f"list of {kind}s", values
    bounds = [f"{words} {field[key]}" for key, words in _BOUNDS.items() if key in field]
    kind = "path" if field.get("format") == "path" else _TYPES.get(field.get("type", ""), "any")
    return kind, " and ".join(bounds)

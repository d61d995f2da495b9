"""The references of the site, made from the code: fields of the configuration, commands and their options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer

from ddcnn.cli import app
from ddcnn.cli.options import FIELDS
from ddcnn.config import Config


def configuration() -> str:
    """Return all fields of the configuration, section by section."""
    sections = [(name, field.annotation) for name, field in Config.model_fields.items() if _is_section(field)]
    top = [name for name, field in Config.model_fields.items() if not _is_section(field)]
    parts = [_paragraphs(Config), _table(Config, "", top)]
    for name, section in sections:
        parts += [f"## {name}", _paragraphs(section), _table(section, f"{name}.", list(section.model_fields))]
    return "\n\n".join(parts)


def commands() -> str:
    """Return all commands, with what their help says."""
    found = _leaves(typer.main.get_command(app), "ddcnn")
    return "\n\n".join(part for path, command in found for part in _help(path, command))


_WORDS = {"None": "none", "True": "true", "False": "false"}  # as YAML has them
MADE: dict[str, Callable[[], str]] = {"configuration": configuration, "commands": commands}


def _is_section(field: Any) -> bool:
    return inspect.isclass(field.annotation) and hasattr(field.annotation, "model_fields")


def _paragraphs(model: Any) -> str:
    text = inspect.getdoc(model) or ""
    text = text.partition("\n>>> ")[0].strip()
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _table(model: Any, prefix: str, names: list[str]) -> str:
    options = {field.field: field.option for field in FIELDS}
    rows = ["| field | values | default | option |", "|---|---|---|---|"]
    schema = model.model_json_schema()
    for name in names:
        values = _values(schema["properties"][name], schema.get("$defs", {}))
        option = options.get(prefix + name)
        default = _default(prefix, name)
        rows.append(f"| `{prefix}{name}` | {values} | {default} | {f'`{option}`' if option else ''} |")
    return "\n".join(rows)


def _default(prefix: str, name: str) -> str:
    values = Config().model_dump(mode="json")
    shown = (values[prefix.rstrip(".")] if prefix else values)[name]
    if isinstance(shown, list):
        return f"`{'x'.join(map(str, shown)) if all(isinstance(n, int) for n in shown) else shown}`"
    return f"`{_WORDS.get(str(shown), shown)}`"


def _values(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """Return in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(one, known) for one in schema["anyOf"]))
    if "$ref" in schema:
        return "fields of its own"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_values(schema['items'], known)}" if "items" in schema else "two numbers"
    word = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return " ".join([word.get(kind, "names and values"), *bounds])


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _leaves(inner, f"{path} {name}")
    else:
        yield path, command


def _help(path: str, command: Any) -> Iterator[str]:
    text, _, examples = inspect.cleandoc(command.help or "").replace("\b\n", "").partition("For example:")
    yield f"## {path}"
    yield text.strip()
    if examples.strip():
        yield "```text\n" + "\n".join(line.strip() for line in examples.strip().splitlines()) + "\n```"
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        rows = [f"| {panel or 'what to give'} | |", "|---|---|", *map(_row, parameters)]
        yield "\n".join(rows)


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts) if parameter.opts[0].startswith("-") else ""
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar or ""
    shown = " ".join(filter(None, [names, f"`{value}`" if value else ""]))
    return f"| {shown} | {(parameter.help or '').replace('|', '&#124;')} |"

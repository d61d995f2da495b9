"""`ddcnn config`: the reference of all fields of a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddcnn.cli.options import FIELDS, JsonOption
from ddcnn.cli.streams import print_json
from ddcnn.errors import ConfigError
from ddcnn.text import printable

if TYPE_CHECKING:
    from ddcnn.config.reference import FieldInWords


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(config)


def config(
    field: Annotated[
        str | None,
        typer.Argument(metavar="FIELD", help="One field, such as training.lr, or a section.", show_default=False),
    ] = None,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="As tables of Markdown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what can be configured: type, default, range and meaning of each field, and the option that sets it.

    Any of them can be set by --set FIELD=VALUE, and in the YAML file of --config.

    \b
    For example:
    ddcnn config
    ddcnn config training
    ddcnn config training.lr
    """  # noqa: D301
    from ddcnn.config.reference import find_fields, reference

    if markdown and as_json:
        raise ConfigError("--markdown and --json are two forms; choose one")
    fields = reference() if field is None else find_fields(field)
    if as_json:
        print_json([one._asdict() | {"option": option_of(one)} for one in fields])
    elif markdown:
        print(as_markdown(fields))
    else:
        print("\n\n".join("\n".join(map(printable, _lines(one))) for one in fields))


def option_of(field: FieldInWords) -> str:
    """Return the option that sets a field."""
    own = next((one.option for one in FIELDS if one.field == field.name), None)
    return own or f"--set {field.name}=..."


def as_markdown(fields: Iterable[FieldInWords]) -> str:
    """Return a table for each section, below what the section is."""
    from ddcnn.config.reference import meaning_of_section

    lines: list[str] = []
    for section, rows in groupby(fields, lambda one: one.name.rpartition(".")[0]):
        lines += [f"## {section or 'The run'}", "", meaning_of_section(section), ""]
        lines += ["| field | values | default | meaning | option |", "| --- | --- | --- | --- | --- |"]
        for one in rows:
            values = f"{one.kind}, {one.values}" if one.values else one.kind
            cells = (f"`{one.name}`", values, f"`{_written(one.default)}`", one.meaning, f"`{option_of(one)}`")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _lines(field: FieldInWords) -> list[str]:
    values = f", {field.values}" if field.values else ""
    return [
        f"{field.name}  ({field.kind}{values}; default {_written(field.default)})",
        f"  {field.meaning}",
        f"  {option_of(field)}",
    ]


def _written(value: Any) -> str:
    """Write a value as YAML has it, in one line."""
    import yaml

    if value is None:
        return "none"
    return str(yaml.safe_dump(value, default_flow_style=True, width=1_000)).removesuffix("\n").removesuffix("\n...")

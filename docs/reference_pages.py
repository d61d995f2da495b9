"""The references of the site, made from the code: fields of the configuration, commands and their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import typer

from ddcnn.cli import app
from ddcnn.cli.config import as_markdown
from ddcnn.config.reference import reference


def configuration() -> str:
    """Return all fields of the configuration, section by section: ``ddcnn config --markdown``."""
    return as_markdown(reference())


def commands() -> str:
    """Return all commands, with what their help says."""
    found = _leaves(typer.main.get_command(app), "ddcnn")
    return "\n\n".join(part for path, command in found for part in _help(path, command))


MADE: dict[str, Callable[[], str]] = {"configuration": configuration, "commands": commands}


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
        if getattr(parameter, "hidden", False):
            continue
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        rows = [f"| {panel or 'what to give'} | |", "|---|---|", *map(_row, parameters)]
        yield "\n".join(rows)


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts) if parameter.opts[0].startswith("-") else ""
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar or ""
    shown = " ".join(filter(None, [names, f"`{value}`" if value else ""]))
    return f"| {shown} | {(parameter.help or '').replace('|', '&#124;')} |"

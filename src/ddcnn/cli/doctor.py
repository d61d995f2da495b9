"""`ddcnn doctor`: what ddcnn finds on this machine, and what to look after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ddcnn.cli.options import JsonOption
from ddcnn.extras import install
from ddcnn.text import printable, size_text

if TYPE_CHECKING:
    from rich.table import Table


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(*, as_json: JsonOption = False) -> None:
    """Show versions, devices, threads, load, precisions, free memory and disk, and extras; say what to look after."""
    from ddcnn.cli.display import print_json, print_table
    from ddcnn.planning.checkup import check_up

    found = check_up()
    if as_json:
        print_json(found)
        return
    print_table(_machine(found))
    print_table(_extras(found))
    print("\n".join(map(printable, found["advice"])) or "nothing to look after")


def _machine(found: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "here")
    rows = [(name, version) for name, version in found["versions"].items()]
    for one in found["devices"]:
        speed = one["bfloat16_speed"]
        said = "bfloat16 not possible" if speed is None else f"bfloat16 {speed:g} times as fast as float32"
        rows.append((one["device"], f"{one['name']}; {said}"))
    rows.append(("cores, threads, load", f"{found['cores']}, {found['threads']}, {found['load']}"))
    rows.append(("memory free", _size(found["memory_free"])))
    rows += [(f"disk free, {place}", _size(free)) for place, free in found["disk_free"].items()]
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def _extras(found: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("extra", "for", "installed")
    for name, extra in found["extras"].items():
        missing = [package for package, version in extra["packages"].items() if version is None]
        state = "yes" if not missing else f"no: {install(name)}"
        table.add_row(name, extra["for"], Text(state))
    return table


def _size(size: int | None) -> str:
    return "unknown" if size is None else size_text(size)

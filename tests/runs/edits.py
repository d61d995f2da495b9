"""What a stranger changes in a run and seals again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

from ddcnn.runs.folder import RunFolder


def change(run: RunFolder, name: str, edit: Callable[[Any], Any]) -> None:
    """Change a file as somebody does who computes the manifest anew."""
    path = run.path / name
    if name.endswith(".yaml"):
        values = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(edit(values) or values))
    else:
        values = json.loads(path.read_text())
        path.write_text(json.dumps(edit(values) or values))
    RunFolder(run.path).seal()


def put(section: str, field: str, value: Any) -> Callable[[Any], None]:
    def edit(values: dict[str, Any]) -> None:
        values[section][field] = value

    return edit

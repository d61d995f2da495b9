"""`config`: every field of the models is there, with its type, range, default, meaning and option."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ddcnn.config import Config


def test_every_field_is_there_once(call: Callable) -> None:
    listed = json.loads(call("config", "--json").out)
    assert [row["name"] for row in listed] == list(_names(Config().model_dump(mode="json")))
    assert all(row["meaning"].endswith(".") and row["kind"] for row in listed)


def test_one_field(call: Callable) -> None:
    code, out, _ = call("config", "training.lr")
    assert code == 0
    assert out.splitlines()[0] == "training.lr  (number, above 0; default auto)"
    assert out.splitlines()[2] == "  --lr"
    assert call("config", "clip_norm").out.splitlines()[-1] == "  --set training.clip_norm=..."


def test_a_section(call: Callable) -> None:
    listed = json.loads(call("config", "transfer", "--json").out)
    assert [row["name"] for row in listed] == ["transfer.carry_aggregation", "transfer.epochs", "transfer.lr_factor"]


def test_ranges_are_those_that_are_checked(call: Callable) -> None:
    rows = {row["name"]: row for row in json.loads(call("config", "--json").out)}
    assert rows["training.rotation"]["values"] == "at least 0 and at most 180"
    assert rows["data.test"]["values"] == "at least 0 and below 1"
    assert rows["compute.backend"]["kind"] == "auto, fused, vmapped, looped"
    assert rows["compute.memory"]["kind"] == "bytes, or text such as 8GB"


def test_markdown_has_a_row_per_field(call: Callable) -> None:
    page = call("config", "--markdown").out
    assert "\n## transfer\n\nThe second phase of transfer: " in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(list(_names(Config().model_dump(mode="json"))))
    assert all(line.replace("\\|", "").count("|") == 6 for line in rows)


def test_an_unknown_field_has_a_neighbour(refused: Callable) -> None:
    assert "did you mean 'training.epochs'?" in refused("config", "training.epoch")
    assert "did you mean 'training'?" in refused("config", "trainig")
    assert "did you mean 'momentum'?" in refused("config", "momentun")
    assert "choose one" in refused("config", "--json", "--markdown")


def _names(values: dict[str, Any], before: str = "") -> Any:
    for name, value in values.items():
        free = f"{before}{name}" in ("decomposition.options", "model.options", "aggregation.options")
        if isinstance(value, dict) and not free and f"{before}{name}" != "training.subdomains":
            yield from _names(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"

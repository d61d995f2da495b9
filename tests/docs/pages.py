"""Code blocks of pages, and how they are run: in this process, on small data."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_SLURM = {"SCRATCH": "scratch", "SLURM_JOB_NODELIST": "n"}
_SHELL = ("ddcnn", "pip", "make", "python", "torchrun", "srun", "scontrol", "ray", "sleep")
_STUB = """#!{python} -S
import json, sys
with open({log!r}, "a") as file:
    file.write(json.dumps(["{name}", *sys.argv[1:]]) + "\\n")
"""


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, a path below the root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(found[1], found[2], text[: found.start()].count("\n") + 2) for found in _BLOCK.finditer(text)]


def run_python(page: str, block: Block, names: dict[str, Any]) -> None:
    """Run a block with the names that those before it have left; one that begins ``# name.py`` becomes that file."""
    file = re.match(r"# (\w+\.py)\n", block.text)
    if file:
        Path(file[1]).write_text(block.text, encoding="utf-8")
        return
    tree = ast.parse(block.text, page)
    ast.increment_lineno(tree, block.line - 1)
    exec(compile(tree, str(ROOT / page), "exec"), names)


def commands(block: Block, folder: Path) -> list[list[str]]:
    """Return the commands that bash finds in a block, with their arguments; none of them is run."""
    log, stubs = folder / "commands.jsonl", folder / "stubs"
    stubs.mkdir(exist_ok=True)
    for name in _SHELL:
        (stubs / name).write_text(_STUB.format(python=sys.executable, log=str(log), name=name))
        (stubs / name).chmod(0o755)
    log.write_text("")
    paths = os.pathsep.join((str(stubs), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-u", "-c", block.text], env=os.environ | {"PATH": paths} | _SLURM,
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), block.text
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [inner for command in found for inner in _inside(command)]


def _inside(command: list[str]) -> Iterator[list[str]]:
    """Yield a command, or that which another one starts."""
    if command[0] in ("torchrun", "srun"):
        yield from ([command[command.index(name) :] for name in ("ddcnn", "ray") if name in command][:1])
    else:
        yield command

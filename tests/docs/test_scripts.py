"""Scripts beside the package: what they take from it, from each other and from the tests is there."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SCRIPTS = [path for folder in ("docs", "benchmarks", ".ci") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_what_a_script_imports_is_there(script: Path) -> None:
    beside = {path.stem for path in script.parent.glob("*.py")}
    found = list(_imported(ast.parse(script.read_text(encoding="utf-8"))))
    assert not [name for name in found if not _is_there(*name, script.parent, beside)]


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of all imports, those within functions too, and of ``ddcnn.name``; no name: the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ddcnn":
            yield "ddcnn", node.attr


def _is_there(module: str, name: str, folder: Path, beside: set[str]) -> bool:
    if module in beside:
        tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
        return not name or name in set(_defined(tree))
    if module.partition(".")[0] != "ddcnn":
        return True
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    return not name or hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the first level of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            names = (one for one in ast.walk(node) if isinstance(one, ast.Name))
            yield from (one.id for one in names if isinstance(one.ctx, ast.Store))

"""Links, messages, words and references of the pages are true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ddcnn

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    RESULTS / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_FILE = re.compile(r"(?<![\w./:-])(?:docs|src|tests|benchmarks|\.ci)/(?:[a-z0-9_.-]+/)*[a-z0-9_-]+\.[a-z]{2,5}\b(?!-)")
MADE = {"benchmarks/README.md", "benchmarks/results/campaign.jsonl"}  # by the site, and by a script
_VALUE = "\x00"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in set(_anchors(file)), target


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"- {page.relative_to(ROOT / 'docs')}" in contents, page


def test_every_measurement_is_listed() -> None:
    listed = _LINK.findall((RESULTS / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in RESULTS.iterdir() if path.name != "README.md")


def test_files_that_texts_name_are_there() -> None:
    folders = (ROOT / name for name in ("src", "tests", "docs", "benchmarks", ".ci"))
    files = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    texts = [path for path in files if path.suffix in (".py", ".md", ".yml", ".sh", ".toml") or path.name == "Makefile"]
    gone = {
        (str(path.relative_to(ROOT)), name)
        for path in texts
        for name in _FILE.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and name not in MADE
    }
    assert not gone


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: ddcnn\.(\w+)$", page, re.M)) == set(ddcnn.__all__)


def test_messages_of_troubleshooting_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", text, re.M)
    assert len(messages) > 50
    unknown = [message for message in messages if not any(map(_pattern(message).search, _templates()))]
    assert not unknown


def test_the_references_are_complete() -> None:
    import sys

    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import reference_pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
        sys.modules.pop("reference_pages", None)
    fields = reference_pages.configuration()
    values = ddcnn.Config().model_dump()
    for section, value in values.items():
        for name in value if isinstance(value, dict) else ():
            assert f"| `{section}.{name}` |" in fields
    assert re.search(r"^\| `training.lr` \| number, above 0 \| `auto` \| .+ \| `--lr` \|$", fields, re.M)
    commands = reference_pages.commands()
    for command in ("compare", "train", "evaluate", "predict", "explain", "export", "data info", "data prepare"):
        assert f"## ddcnn {command}\n" in commands
    assert "| `--grid` `GRID` | " in commands


def _pattern(message: str) -> re.Pattern[str]:
    """Return what finds a message; between its words stand values, and text that the page leaves out."""
    return re.compile(".*?".join(re.escape(part.strip()) for part in message.split("...") if part.strip()))


def _anchors(page: Path) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M):
        yield re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@cache
def _templates() -> tuple[str, ...]:
    """Return all texts of the code, in one line each, with a mark for each value."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else _VALUE for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)

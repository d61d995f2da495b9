"""How pages are made of templates: whatever is put into one is escaped, for HTML and for eyes."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ddcnn.report.labels_and_formats import by, count, percent
from ddcnn.text import printable


def page_environment() -> Environment:
    """Return an environment for templates of pages, with the filters ``percent``, ``count`` and ``by``."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    environment.filters |= {"percent": percent, "count": count, "by": by}
    return environment


def _plain(value: Any) -> Any:
    """Return what is put into the page: of text, such as a configuration that a stranger wrote, nothing steers it."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))

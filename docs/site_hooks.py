"""What the site has beside the pages of `docs/`: references made from the code, and the measurements.

A mark ``<!-- made: NAME -->`` in a page is replaced by what `docs/reference_pages.py` makes. Files of
`benchmarks/results/` become pages, and links to them stay what they are in the repository. Drawings (SVG) are put into
the pages, so that they take their colours.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
sys.path.insert(0, str(HERE))

from reference_pages import MADE  # noqa: E402

OUTSIDE = re.compile(r"\]\(((?:\.\./)*)\.\./benchmarks/results(/[^)#]*)?\)")
DRAWING = re.compile(r"^!\[([^]]*)\]\(((?:\.\./)*)images/([\w-]+\.svg)\)$", re.M)
MARK = re.compile(r"<!-- made: (\w+) -->")


def on_files(files: Files, config: Any) -> Files:
    """Add the measurements; their `README.md` lists them."""
    paths = sorted(RESULTS.iterdir())
    for path in paths:
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    pages = [path for path in paths if path.suffix == ".md" and path.name != "README.md"]
    measurements = next(entry for entry in config.nav if isinstance(entry, dict) and "Measurements" in entry)
    measurements["Measurements"] = ["benchmarks/README.md", *(f"benchmarks/{path.name}" for path in pages)]
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - as mkdocs calls it
    """Put in what is made from the code, and lead links to measurements to their pages."""
    markdown = OUTSIDE.sub(lambda found: f"]({found[1]}benchmarks{found[2] or '/README.md'})", markdown)
    markdown = DRAWING.sub(_inlined, markdown)
    return MARK.sub(lambda found: MADE[found[1]](), markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:  # noqa: ARG001 - as mkdocs calls it
    """Let the search of pages that are opened as files come from here, not from the network."""
    above = "../" * page.url.count("/")
    return output.replace("https://unpkg.com/iframe-worker/shim", f"{above}images/worker.js")


def on_post_template(output_content: str, template_name: str, config: Any) -> str:  # noqa: ARG001
    """Do so in the page for what is not found."""
    return output_content.replace("https://unpkg.com/iframe-worker/shim", "images/worker.js")


def _inlined(found: re.Match[str]) -> str:
    drawing = (HERE / "images" / found[3]).read_text(encoding="utf-8").strip()
    drawing = re.sub("<style>.*?</style>", "", drawing)
    return f'<div class="drawing" role="img" aria-label="{html.escape(found[1])}" markdown="0">{drawing}</div>'

"""The site: built without a warning, nothing fetched, and nothing cut off on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*\shref=["']?(?:https?:)?//"""
)
_TELL = """<script>addEventListener("load", function () {
  const root = document.documentElement;
  const image = Array.from(document.images).find(function (one) { return !one.complete || !one.naturalWidth; });
  parent.postMessage({ page: PAGE, width: innerWidth, wide: root.scrollWidth, broken: image ? image.src : null }, "*");
});</script>"""
# One page after the other: the browser's time stands still as long as something is loaded.
_COLLECT = """const pages = PAGES, frame = document.querySelector("iframe");
function next() { if (pages.length) frame.src = pages.shift(); }
addEventListener("message", function (event) {
  const line = document.createElement("pre");
  line.textContent = JSON.stringify(event.data);
  document.body.append(line);
  next();
});
next();"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `make docs` does."""
    pytest.importorskip("mkdocs", reason="make docs installs what builds the site")
    pytest.importorskip("mkdocstrings", reason="make docs installs what builds the site")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


def test_nothing_is_fetched(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not _FETCHED.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_references_are_made(site: Path) -> None:
    assert "training.label_smoothing" in (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    assert "ddcnn data prepare" in (site / "reference" / "commands.html").read_text(encoding="utf-8")
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert 'id="ddcnn.fit"' in page
    assert "sample_weight" in page
    assert "<svg" in (site / "concepts" / "method.html").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off(site: Path, width: int, tmp_path: Path) -> None:
    copy, names = tmp_path / "site", []
    shutil.copytree(site, copy)
    pages = sorted(path for path in copy.rglob("*.html") if path.name != "404.html")
    for path in pages:
        name = str(path.relative_to(copy))
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("</body>", _TELL.replace("PAGE", json.dumps(name)) + "</body>"), encoding="utf-8")
        names.append(name)
    frame, collect = (
        f'<iframe style="width:{width}px;height:800px"></iframe>',
        _COLLECT.replace("PAGES", json.dumps(names)),
    )
    (copy / "around.html").write_text(f"<!DOCTYPE html>{frame}<script>{collect}</script>", encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=30000",
            "--dump-dom", (copy / "around.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=170, check=True,
    )  # fmt: skip
    _, _, told = done.stdout.rpartition("</script>")
    found = [json.loads(html.unescape(text)) for text in re.findall(r"<pre>(.*?)</pre>", told, re.S)]
    assert len(found) == len(pages)
    assert [one["page"] for one in found if one["wide"] > one["width"] or one["broken"]] == []

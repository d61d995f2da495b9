"""The page in Chromium: three widths, light and dark."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddcnn.report import write_report

WIDTHS = (390, 800, 1280)
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
LONG = ["an unusually long name of a class", *(f"class {k}" for k in range(1, 5))]
_COLLECT = """addEventListener("message", function (event) {
  const line = document.createElement("pre");
  line.textContent = JSON.stringify(event.data);
  document.body.append(line);
});"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which looks for what hinders people with disabilities; empty where it is not there."""
    package = importlib.util.find_spec("axe_core_python")
    return Path(package.origin).with_name("axe.min.js").read_text("utf-8") if package and package.origin else ""


@pytest.fixture
def page(make_run: Callable[..., Path], synthetic: Any) -> str:
    """A page with every section: over-fitted, with long names, and with figures of every kind."""
    results = synthetic.comparison(grid=(3, 4), size=(48, 64), classes=LONG, samples=200)
    results["strategies"][3] |= {"train_accuracy": 0.99, "validation_accuracy": 0.6}
    results["subdomains"][2]["diverged_epoch"] = 3
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 48, 64), np.uint8)
    return write_report(make_run(results=results, images=images, rows=synthetic.metrics(12, epochs=3))).read_text(
        "utf-8"
    )


def test_nothing_is_cut_off_too_small_or_out_of_reach(page: str, axe: str, tmp_path: Path) -> None:
    checks = Path(__file__).with_name("in_browser.js").read_text("utf-8")
    pages = {width: with_scripts(page, axe if width == WIDTHS[0] else "", checks) for width in WIDTHS}
    for scheme in ("light", "dark"):
        seen, console = looked_at(pages, scheme, tmp_path)
        assert console == []
        assert [one["width"] for one in seen] == list(WIDTHS)
        for one in seen:
            assert one["found"] == [], (scheme, one["width"])
            assert one["dark"] == (scheme == "dark")
            before, rising, falling = one["orders"]
            assert rising == sorted(before, key=float)
            assert falling == rising[::-1] != before
        assert seen[0]["wide"] > seen[2]["wide"]  # what does not fit is scrolled
        assert (seen[0]["passes"] > 20) == bool(axe)


def with_scripts(page: str, *scripts: str) -> str:
    """Return the page with further scripts, which its policy allows as it does its own: by their digests."""
    for script in filter(None, scripts):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        page = page.replace("</body>", f"<script>{script}</script></body>")
    return page


def looked_at(pages: dict[int, str], scheme: str, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the scripts of pages tell, each in a frame of its width, and what was said on the console."""
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
        for width, page in pages.items()
    )
    around = folder / "around.html"
    around.write_text(f"<!DOCTYPE html><script>{_COLLECT}</script>{frames}", "utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1400,900",
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--virtual-time-budget=20000",
            "--dump-dom", around.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    _, _, told = done.stdout.rpartition("</iframe>")
    found = [json.loads(html.unescape(text)) for text in re.findall(r"<pre>(.*?)</pre>", told, re.DOTALL)]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return sorted(found, key=lambda one: one["width"]), console

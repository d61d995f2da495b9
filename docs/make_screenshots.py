"""Photograph a report in Chromium as a phone, a tablet and a desktop show it: docs/images/report-*.png.

make demo && .venv/bin/python docs/make_screenshots.py runs/demo
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
SHOWN = {390: ("", 1210), 800: ("#test-accuracy", 870), 1280: ("#the-most-confident-mistakes", 730)}
# width: section at the top, and height; in pixels
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=5000",
]  # fmt: skip


def main(page: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "apt-get install chromium"
    for width, (section, height) in SHOWN.items():
        picture = IMAGES / f"report-{width}.png"
        with tempfile.TemporaryDirectory() as folder:
            # a window has at least 500 pixels, so a narrow page is shown in a frame
            around, scheme = Path(folder, "around.html"), "dark" if width == 800 else "light"
            around.write_text(
                f'<!DOCTYPE html><body style="margin:0"><iframe src="{page.resolve().as_uri()}{section}" '
                f'style="border:0;width:{width}px;height:{height}px"></iframe>'
            )
            window = f"{max(width, 500)},{height}"
            subprocess.run(
                [
                    chromium, *OPTIONS, f"--user-data-dir={folder}/profile", f"--window-size={window}",
                    f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", f"--screenshot={picture}",
                    around.as_uri(),
                ],
                check=True, capture_output=True,
            )  # fmt: skip
        with Image.open(picture) as image:
            shown = image.crop((0, 0, width, height)).convert("RGB")
        shown.save(picture, optimize=True)
        print(picture, picture.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "report.html")

"""Put a run's table and pictures into the README, so that it shows what the command really gave.

    make demo && make readme

Writes between the markers ``<!-- demo-table -->`` of README.md, and into docs/images/.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ddcnn.report import comparison_table, draw_decomposition, plots
from ddcnn.report.read import read_run
from ddcnn.report.svg import style
from ddcnn.runs import RunFolder

ROOT = Path(__file__).parent.parent


def main(folder: Path) -> None:
    RunFolder(folder).check()
    run = read_run(folder)
    results = RunFolder(folder).read_json("comparison.json")
    samples = results["details"]["samples"]
    text = "\n".join(
        [
            "<!-- demo-table -->",
            comparison_table(results).strip(),
            "",
            f"{samples['train']:,} images to train, {samples['validation']:,} to choose the epoch, {samples['test']:,} "
            f"to test; seed {results['seed']}; {results['details']['choices']['precision'].split(':')[0]} on "
            f"{machine(folder)}.",
            "<!-- /demo-table -->",
        ]
    )
    readme = ROOT / "README.md"
    new, count = re.subn(r"<!-- demo-table -->.*<!-- /demo-table -->", lambda _: text, readme.read_text(), flags=re.S)
    assert count == 1, "README.md should hold the markers once"
    readme.write_text(new)
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    with style():
        assert run.images is not None
        figure = draw_decomposition(run.images[0], [s["box"] for s in results["subdomains"]])
        figure.savefig(images / "decomposition.png", dpi=110, bbox_inches="tight", facecolor="white")
        figure = plots.accuracy_figure(run.results, samples["test"])
        figure.savefig(images / "accuracy.png", dpi=110, bbox_inches="tight", facecolor="white")


def machine(folder: Path) -> str:
    facts = RunFolder(folder).read_json("environment.json")
    cores = "1 core" if facts["threads"] == 1 else f"{facts['threads']} cores"
    return f"{cores} of an {facts['processor']}, PyTorch {facts['versions']['torch']}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))

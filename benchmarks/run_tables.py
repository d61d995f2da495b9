"""Runs to a committed table: what they found, and the command, versions, seed and machine of each.

python benchmarks/run_tables.py --title "CIFAR-10" --out benchmarks/results/NAME.md RUN [RUN ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ddcnn.report import comparison_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--title", required=True)
    parser.add_argument("--notes", type=Path, help="Markdown to put below the title")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [f"# {arguments.title}", ""]
    if arguments.notes:
        lines += [arguments.notes.read_text(encoding="utf-8").strip(), ""]
    for run in arguments.runs:
        lines += section(run)
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print(arguments.out)


def section(run: Path) -> list[str]:
    results: dict[str, Any] = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    details, grid = results["details"], "x".join(map(str, results["grid"]))
    samples = ", ".join(f"{count:,} {part}" for part, count in details["samples"].items())
    versions = ", ".join(f"{name} {number}" for name, number in details["versions"].items())
    local = [row["test_accuracy"] for row in results["subdomains"]]
    return [
        f"## {results['data']}, {results['model']}, {grid}, seed {results['seed']}",
        "",
        f"`{details['command']}`",
        "",
        comparison_table(results),
        "",
        f"Local CNNs alone: {100 * min(local):.1f} to {100 * max(local):.1f} % of the test images right. "
        f"Images: {samples}. " + " ".join(f"{key} {text}." for key, text in details["choices"].items()),
        "",
        f"{environment['processor']}, {environment['threads']} threads of {environment['cores']} cores, "
        f"{environment['device']}; {versions}.",
        "",
    ]


if __name__ == "__main__":
    main()

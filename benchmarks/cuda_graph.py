"""What does replaying forward and backward pass as a CUDA graph save? Whole steps, in turns, on one GPU.

    python benchmarks/cuda_graph.py [--budget 3] [--only TEXT ...]

The rows are those of `benchmarks/fusion.py`. Each network is timed as its code runs (a fused one recorded) and as it
is replayed; the optimiser's step is in both. A network that is not replayed has the reason in its row.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from common import describe_machine, in_turns, write
from fusion import DEVICE, Candidate, rows

BACKENDS = {"loop": "looped", "fused": "fused"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds per row and candidate")
    parser.add_argument(
        "--only", nargs="*", default=["resnet20-32x32-", "vgg9-32x32-", "cnn3d"], help="parts of names of rows"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if DEVICE.type != "cuda":
        parser.error("there is no GPU here")
    command = f"python benchmarks/cuda_graph.py --budget {options.budget:g} --only {' '.join(options.only)}"
    lines = [
        "# Steps replayed as a CUDA graph",
        "",
        describe_machine(command, DEVICE),
        "",
        "Milliseconds, medians [quartiles]; saved: code / replayed.",
        "",
        "| row | N | network | code | replayed | saved |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows(only=options.only, quick=False, large=False):
        for name, backend in BACKENDS.items():
            replayed = Candidate(row, backend)
            candidates = {"code": Candidate(row, backend, graphs=False), "replayed": replayed}
            found = in_turns(candidates, 15, seconds=options.budget)
            times = {kind: 1000 * seconds for kind, seconds in found.items()}
            (note,) = replayed.notes
            if not note.startswith("no "):
                note = f"{np.median(times['code']) / np.median(times['replayed']):.2f}"
            cells = [
                f"{np.median(ms):.2f} [{np.quantile(ms, 0.25):.2f}, {np.quantile(ms, 0.75):.2f}]"
                for ms in times.values()
            ]
            lines.append(f"| {row.name} | {math.prod(row.grid)} | {name} | {' | '.join(cells)} | {note} |")
            print(lines[-1], flush=True)
    write(options.out, "cuda-graph", lines, DEVICE)


if __name__ == "__main__":
    main()

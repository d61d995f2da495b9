"""Where does a training step spend its time? Shares of PyTorch's operators, of local CNNs as one and of the global CNN.

    python benchmarks/operators.py [--threads 1] [--rows resnet20-32x32-N4-bfloat16 ...] [--out FILE.md]

The shares are of the processor's time within operators and between them (PyTorch's profiler), so that other programs
disturb them little; no times are given.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from common import describe_machine, result_path, write
from fusion import Candidate, rows
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

ROWS = ("resnet20-32x32-N4-float32", "resnet20-32x32-N4-bfloat16")
STEPS = 8
KINDS = {
    "convolution": ("aten::convolution_backward", "aten::mkldnn_convolution"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU": ("aten::threshold_backward", "aten::clamp_min_"),
    "sums of residual blocks": ("aten::add_",),
    "copies": ("aten::copy_",),
}
OTHER = "all other operators, and between them"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    columns: dict[str, dict[str, float]] = {}
    for row in rows(quick=False, large=False, only=options.rows):
        columns[f"{row.name}: local CNNs"] = shares(Candidate(row, "fused"))
        columns[f"{row.name}: global CNN"] = shares(Candidate(row, "looped", whole=True))
    lines = [
        "# Where a training step spends its time",
        "",
        describe_machine(f"python benchmarks/operators.py --threads {options.threads}", device),
        "",
        "Percent of the processor's time. Other programs may run beside it.",
        "",
        f"| operator | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for kind in (*KINDS, OTHER):
        lines.append(f"| {kind} | {' | '.join(f'{found[kind]:.0f}' for found in columns.values())} |")
    print("\n".join(lines))
    write(options.out or result_path("operators", device), "operators", lines, device)


def shares(step: Candidate) -> dict[str, float]:
    """Return the percentages of a step by kind."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    found: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CPU:
            found[kinds.get(event.key, OTHER)] += event.self_cpu_time_total
    total = sum(found.values())
    return {kind: 100 * found[kind] / total for kind in (*KINDS, OTHER)}


if __name__ == "__main__":
    main()

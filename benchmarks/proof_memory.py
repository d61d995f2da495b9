"""How much memory does the proof take that fused networks are exact? In copies of the parameters of all N networks.

    python benchmarks/proof_memory.py [--only TEXT] [--out FILE.md]

Each row is a process of its own: it makes N networks and calls `ddcnn.fuse` without an example. Peak: growth of the
resident memory, looked at 50 times a second, from when the networks are there; the fused network, which stays, and the
activations of the proof are in it. A copy is the float32 parameters of all N; the proof computes in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import describe_machine, write
from torch import nn

import ddcnn
from ddcnn.machine import resident_memory

MOST = 8.0  # copies


def vgg11() -> nn.Module:
    """Return the plain VGG-11 (Simonyan and Zisserman, arXiv:1409.1556, table 1, A), for images from 32x32 on."""
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    dense = (nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *dense, nn.Linear(4096, 1000))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        project = (nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if before == width else nn.Sequential(*project)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    """Return the ResNet-18 (He et al., arXiv:1512.03385, table 1)."""
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
    blocks = (Block(*width) for width in (*widths, (512, 512, 1)))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


ROWS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "VGG-11, N = 2": (vgg11, 2),
    "ResNet-18, N = 2": (resnet18, 2),
    "ResNet-18, N = 16": (resnet18, 16),
}


class Highest(threading.Thread):
    """Looks at the resident memory until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.bytes = self.before = resident_memory()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.bytes = max(self.bytes, resident_memory())


def measure(name: str) -> dict[str, object]:
    make, members = ROWS[name]
    networks = [make() for _ in range(members)]
    size = sum(p.nbytes for network in networks for p in network.parameters())
    watch, start = Highest(), time.perf_counter()
    watch.start()
    fused = ddcnn.fuse(networks)
    seconds = time.perf_counter() - start
    watch.ended.set()
    watch.join()
    return {"backend": fused.backend, "copy": size, "peak": watch.bytes - watch.before, "seconds": seconds}


def line(name: str, found: dict[str, float]) -> str:
    size, peak = found["copy"], found["peak"]
    row = (name, size / 4e6, size / 1e9, peak / 1e9, peak / size, (ROWS[name][1] * peak) / size, found["seconds"])
    return f"| {row[0]} | {found['backend']} | " + " | ".join(f"{value:.1f}" for value in row[1:]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row)))
        return
    rows, most = [], 0.0
    for name in (name for name in ROWS if options.only in name):
        command = [sys.executable, __file__, "--row", name]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(ended.stdout.splitlines()[-1])
        rows.append(line(name, found))
        most = max(most, found["peak"] / found["copy"])
        print(rows[-1], flush=True)
    device = torch.device("cpu")
    head = "| networks | backend | parameters (M) | copy (GB) | peak (GB) | copies | networks' worth | time (s) |"
    lines = ["# Memory of the proof", "", describe_machine("python benchmarks/proof_memory.py", device), ""]
    lines += [__doc__.split("\n\n")[-1].strip(), "", head, "|---|---|" + "---:|" * 6, *rows, ""]
    lines += [
        f"The largest is {most:.1f} copies; at most {MOST:.0f} are allowed: {'kept' if most <= MOST else 'NOT KEPT'}."
    ]
    write(options.out, "proof-memory", lines, device)


if __name__ == "__main__":
    main()

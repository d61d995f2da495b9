"""Does a store keep what it promises: bytes read, speed of training, memory?

    python benchmarks/store.py [--gigabytes 20] [--scratch DIR]

1. Bytes read by a worker that trains 1 of 32 subdomains for one epoch, against 1/32 of all bytes of the store
   (target: under 1.2). Counted by the store, and by the kernel (``rchar`` of /proc/self/io), which also counts
   metadata, labels and moments.
2. Images per second of training from the store, in the page cache, against training from memory (target: 0.9 or
   more), in turns; the first turn is a warm-up.
3. Peak resident memory of ``ddcnn data prepare`` and of a training under ``--memory``, for a phantom set of that many
   gigabytes (target: under 2 GB).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, in_turns, watched, write

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.data.dataset import Dataset
from ddcnn.data.lazy import Lazy, Resident, load
from ddcnn.data.store import Store, Stored, write_store
from ddcnn.decomposition import Grid
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.training import fit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRID = Grid((4, 4, 2))
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the large set; 0: not measured")
    parser.add_argument("--size", type=int, nargs=3, default=(128, 128, 64))
    parser.add_argument("--samples", type=int, default=64, help="for bytes and speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--model", default="cnn3d")
    parser.add_argument("--width", type=float, default=0.05, help="of the networks of the large set")
    parser.add_argument("--backend", default="looped", help="for speed; of 32 cnn3d the loop is the fastest on CPUs")
    parser.add_argument("--scratch", type=Path, help="where the stores are written; default a temporary folder")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as the command line does for volumes; read at the first allocation
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        lines = _measure(arguments, scratch)
    finally:
        shutil.rmtree(scratch)
    write(arguments.out, "store", lines, DEVICE)


def _measure(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    size = tuple(arguments.size)
    dataset = volumes(arguments.samples, size)
    write_store(dataset, scratch / "small.zarr", GRID)
    command = " ".join(["python benchmarks/store.py", *sys.argv[1:]])
    lines = ["# The store: bytes, speed, memory", "", describe_machine(command, DEVICE), ""]
    lines += _bytes(scratch / "small.zarr", dataset)
    lines += _speed(scratch / "small.zarr", dataset, arguments)
    if arguments.gigabytes:
        lines += _memory(scratch, arguments)
    return lines


def volumes(samples: int, size: tuple[int, ...]) -> Dataset:
    """Return smooth volumes with noise, made one at a time; labels alternate."""

    def image(i: int) -> torch.Tensor:
        rng = np.random.default_rng(i)
        ramps = np.ix_(*(np.sin(np.linspace(rng.uniform(0, 6), rng.uniform(6, 12), length)) for length in size))
        smooth = (sum(ramps) * 30 + 120).astype(np.float32)
        smooth += rng.standard_normal(size, np.float32) * 8 + 20 * (i % 2)
        return torch.from_numpy(smooth.clip(0, 255).astype(np.uint8)[None])

    images = Lazy(image, (samples, 1, *size), torch.uint8)
    return Dataset("volumes", images, torch.arange(samples) % 2, ("a", "b"))


def _bytes(path: Path, dataset: Dataset) -> list[str]:
    every = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    before = _rchar()
    images = Stored(Store(path))
    subdomain = GRID.subdomains(dataset.image_size)[9]
    batches = Batches(images, dataset.labels, torch.arange(len(images)), BATCH, subdomains=(subdomain,))
    for _ in batches.shuffled(1):
        pass
    counted, kernel = images.store.bytes_read, _rchar() - before
    share = every / len(GRID)
    return [
        f"**Bytes.** One epoch of 1 of 32 subdomains of a store of {every:,} bytes ({len(images)} volumes):",
        f"{counted:,} of chunks and checksums = {counted / share:.3f} x 1/32; {kernel:,} in all reads of the process = "
        f"{kernel / share:.3f} x 1/32, metadata and labels of all subdomains included.",
        "",
    ]


def _rchar() -> int:
    line = Path("/proc/self/io").read_text().splitlines()[0]
    return int(line.split()[1])


def _speed(path: Path, dataset: Dataset, arguments: argparse.Namespace) -> list[str]:
    memory = Resident(load(dataset.images).to(DEVICE))
    stored = Stored(Store(path))
    labels = dataset.labels.to(DEVICE)
    normalization = Normalization.of_moments(stored.moments(), math.prod(dataset.image_size)).to(DEVICE)
    rows = ["| local CNNs | from memory, images/s | from the store, images/s | ratio [min, max] |", "|---|---|---|---|"]
    for count in (1, 32):
        networks = [_network(arguments, dataset, count, normalization) for _ in range(2)]
        parts = [
            Batches(inputs, labels, torch.arange(len(labels)), BATCH, subdomains=network.subdomains)
            for inputs, network in zip((memory, stored), networks, strict=True)
        ]
        candidates = {
            name: lambda network=network, part=part: _epoch(network, part)
            for name, network, part in zip(("memory", "store"), networks, parts, strict=True)
        }
        times = in_turns(candidates, arguments.rounds)
        ratios = times["memory"] / times["store"]
        trained = parts[0].steps * BATCH
        speeds = [trained / np.median(times[name]) for name in ("memory", "store")]
        rows.append(
            f"| {count} | {speeds[0]:.1f} | {speeds[1]:.1f} | {np.median(ratios):.2f} "
            f"[{ratios.min():.2f}, {ratios.max():.2f}] |"
        )
        print(rows[-1], flush=True)
    return [
        f"**Speed** of an epoch and its evaluation, {arguments.model} {arguments.backend}, page cache warm:",
        "",
        *rows,
        "",
    ]


def _network(arguments: argparse.Namespace, dataset: Dataset, count: int, normalization: Normalization) -> LocalCNNs:
    model, backend = arguments.model, arguments.backend
    indices = tuple(range(count))
    subdomains = GRID.subdomains(dataset.image_size)[:count]
    modules = [build(model, 1, 2, s.shape, width=width_rule(len(GRID)), seed=s.index).to(DEVICE) for s in subdomains]
    options: dict[str, Any] = {"image_size": dataset.image_size, "indices": indices, "channels": 1}
    return LocalCNNs(GRID, modules, backend=backend, normalization=normalization, **options)


def _epoch(network: LocalCNNs, batches: Batches) -> None:
    few = replace(batches, indices=batches.indices[:BATCH])
    fit(network, batches, few, TrainingConfig(epochs=1, lr=0.01), classes=2, stage="store")
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _memory(scratch: Path, arguments: argparse.Namespace) -> list[str]:
    size = "x".join(map(str, arguments.size))
    samples = round(arguments.gigabytes * 1e9 / math.prod(arguments.size))
    store, run = scratch / "large.zarr", scratch / "run"
    commands = [
        f"data prepare phantom:size={size},n={samples} {store} --grid 4x4x2",
        f"train --strategy local --data zarr:{store} --model {arguments.model} --grid 4x4x2 --epochs 1 "
        f"--batch-size {BATCH} --memory {arguments.memory} --set model.width_factor={arguments.width} --out {run}",
    ]
    rows = []
    for command in commands:
        seconds, peak = watched([sys.executable, "-m", "ddcnn", *command.split(), "--quiet"])
        shown = command.replace(f"{scratch}/", "")
        rows.append(f"| `ddcnn {shown}` | {peak / 1e9:.2f} | {seconds:.0f} |")
        print(rows[-1], flush=True)
    choices = json.loads((run / "comparison.json").read_text())["details"]["choices"]
    on_disk = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    return [
        f"**Resident memory**, {samples:,} volumes, {arguments.gigabytes:g} GB, {on_disk / 1e9:.1f} GB on disk:",
        "",
        "| command | peak (GB) | time (s) |",
        "|---|---:|---:|",
        *rows,
        "",
        f"The run's plan: {choices['memory']}.",
    ]


if __name__ == "__main__":
    main()

"""What does fusing save? A step of N local CNNs, fused and as chosen, against the loop, vmap and the global CNN.

    python benchmarks/fusion.py [--budget 12] [--quick | --large] [--only TEXT ...] [--resume] [--out FILE.md]

Forward, backward and optimiser step (SGD with momentum) on random images, so that no data set is needed. The
candidates take turns in one process; the first turn is a warm-up and not counted; rounds end with the budget of a row,
in seconds, but three are run in any case. "Chosen" is what `backend="auto"` picked with these images as an example,
timed anew. Each row is appended to FILE.jsonl as it is measured, and --resume goes on from there. At the end: a table,
a summary, a plot.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from common import describe_machine, in_turns, matmul_peak, peak_memory, result_path, synchronize
from fusion_report import line, write_report
from roof import bandwidth, roof, work

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.decomposition import Grid, Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion import Backend
from ddcnn.fusion.recorded import PASSES
from ddcnn.models import LocalCNNs, build, width_rule
from ddcnn.training import MemberOptimizer, PrecisionName, Step
from ddcnn.training.precision import autocast
from ddcnn.training.replay import Replay

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = {"resnet20": 1, "vgg9": 8, "cnn3d": 16, "networks:DenseNet": 4, "networks:ConvNeXt": 4}
"""Factories, and the fewest pixels of a subimage that they take."""
GRIDS = {
    (32, 32): ((1, 1), (2, 2), (4, 4), (4, 8), (8, 8)),
    (180, 180): ((2, 2), (4, 4)),
    (32, 32, 32): ((2, 2, 2), (4, 4, 4)),
    (64, 64, 64): ((2, 2, 2), (4, 4, 4)),
    (128, 128, 64): ((4, 4, 2),),
}
BATCH = {(32, 32): 128, (180, 180): 8, (32, 32, 32): 8, (64, 64, 64): 2, (128, 128, 64): 2}
LARGE = {(64, 64, 64), (128, 128, 64)}
PRECISIONS: dict[PrecisionName, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLASSES = 10


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    network: str
    size: tuple[int, ...]
    grid: tuple[int, ...]
    precision: PrecisionName

    @property
    def name(self) -> str:
        network, image = self.network.rpartition(":")[2].lower(), "x".join(map(str, self.size))
        return f"{network}-{image}-N{math.prod(self.grid)}-{self.precision}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S): colour images and grey volumes."""
        return (3 if len(self.size) == 2 else 1, *self.size)


def rows(*, quick: bool, large: bool, only: Sequence[str]) -> Iterator[Row]:
    for size, grids in GRIDS.items():
        for network, pixels in NETWORKS.items():
            for grid in grids:
                for precision in PRECISIONS:
                    row = Row(network, size, grid, precision)
                    fits = all(n // parts >= pixels for n, parts in zip(size, grid, strict=True))
                    wanted = (large or size not in LARGE) and any(text in row.name for text in only)
                    brief = size == (32, 32) and precision == "float32" and math.prod(grid) in (4, 16)
                    if fits and wanted and (brief or not quick):
                        yield row


class Candidate:
    """A network and its training step on random images; made, it has run until it is as in a long training.

    Fused ones are then recorded, and on a GPU all of them replayed, unless ``graphs`` is False.
    """

    def __init__(
        self, row: Row, backend: str, *, whole: bool = False, batch: int | None = None, graphs: bool = True
    ) -> None:
        decomposition = Grid((1,) * len(row.grid) if whole else row.grid)
        width = width_rule(len(decomposition))
        channels = row.shape[0]
        modules = [
            build(row.network, channels, CLASSES, s.shape, width=width, seed=s.index).to(DEVICE)
            for s in decomposition.subdomains(row.size)
        ]
        self.images = torch.randn(batch or BATCH[row.size], *row.shape, device=DEVICE)
        self.labels = torch.randint(CLASSES, (len(self.images),), device=DEVICE)
        seen = Subimages.of(self.images, decomposition.subdomains(row.size))
        self.batch = Batch(seen, self.labels, torch.arange(len(self.labels)))
        example = seen if backend == "auto" else None
        with autocast(row.precision, DEVICE):  # the choice is for this precision
            network = LocalCNNs(
                decomposition, modules, image_size=row.size, backend=cast(Backend, backend), example=example,
                channels=channels,
            ).train()  # fmt: skip
        if backend not in ("auto", network.backend):
            raise FusionError(f"asked for {backend}, got {network.backend}: {network.reason}")
        self.backend, self.reason = network.backend, network.reason
        self.notes: list[str] = []
        replay = Replay(network, note=self.notes.append) if graphs and DEVICE.type == "cuda" else None
        self.step = Step(network, MemberOptimizer(network, TrainingConfig(lr=0.01)), row.precision, replay=replay)
        recorded = PASSES if backend in ("fused", "auto") else 0
        for _ in range(1 + (recorded if replay is None else replay.after)):
            self()

    def __call__(self) -> None:
        self.step(self.batch)
        synchronize(DEVICE)


def measure(row: Row, budget: float, peak: float, bytes_per_second: float) -> dict[str, Any]:
    start = time.perf_counter()
    backends = {"loop": "looped", "vmap": "vmapped", "fused": "fused", "chosen": "auto"}
    makers: dict[str, Callable[[], Candidate]] = {"global": lambda: Candidate(row, "looped", whole=True)}
    makers |= {name: lambda backend=backend: Candidate(row, backend) for name, backend in backends.items()}
    candidates, missing = {}, {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
        except (FusionError, RuntimeError) as error:  # no such backend for this network, or out of memory
            missing[name] = str(error).splitlines()[0]
    times = in_turns(candidates, 15, seconds=budget)
    chosen = candidates.get("chosen")
    done = {kind: operators(row, whole=kind == "global") for kind in ("global", "local")}
    result = {
        "name": row.name,
        "network": row.name.split("-")[0],
        "size": row.size,
        "N": math.prod(row.grid),
        "batch": BATCH[row.size],
        "precision": row.precision,
        "seconds": {name: list(values) for name, values in times.items()},
        "bytes": {name: peak_memory(run, DEVICE) for name, run in candidates.items()},
        "backend": chosen.backend if chosen else "-",
        "reason": chosen.reason if chosen else "-",
        "missing": missing,
        "flops": {kind: sum(flops for flops, _ in counted) for kind, counted in done.items()},
        "roof_seconds": {kind: roof(counted, peak, bytes_per_second) for kind, counted in done.items()},
        "peak_flops_per_second": peak,
        "bytes_per_second": bytes_per_second,
    }
    result["took"] = time.perf_counter() - start
    return result


def operators(row: Row, *, whole: bool) -> list[tuple[float, float]]:
    """Return the operations and bytes of each operator of a step, of networks apart."""
    return work(Candidate(row, "looped", whole=whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=12.0, help="seconds of counted rounds per row")
    parser.add_argument("--quick", action="store_true", help="few rows: 32x32, float32, N = 4 and 16")
    parser.add_argument("--large", action="store_true", help="also volumes of 64x64x64")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="rows whose name contains one of these, such as vgg9 or 32x32x32 or N16"
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in FILE.jsonl")
    parser.add_argument("--out", type=Path, default=result_path("fusion", DEVICE))
    options = parser.parse_args()
    log = options.out.with_suffix(".jsonl")
    if not options.resume:
        log.unlink(missing_ok=True)
    done = [json.loads(text) for text in log.read_text("utf-8").splitlines()] if log.exists() else []
    peaks = {precision: matmul_peak(dtype, DEVICE) for precision, dtype in PRECISIONS.items()}
    bytes_per_second = bandwidth(DEVICE)
    for row in rows(quick=options.quick, large=options.large, only=options.only):
        if row.name in {result["name"] for result in done}:
            continue
        done.append(measure(row, options.budget, peaks[row.precision], bytes_per_second))
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(line(done[-1]), f"{done[-1]['took']:.0f} s", flush=True)
        gc.collect()
    flags = "".join(f" --{flag}" for flag in ("quick", "large") if getattr(options, flag))
    command = f"python benchmarks/fusion.py --budget {options.budget:g}{flags}"
    write_report(done, describe_machine(command, DEVICE), options.out)


if __name__ == "__main__":
    main()

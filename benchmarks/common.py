"""What the benchmarks share: candidates in turns, the machine in words, tables to files."""

from __future__ import annotations

import datetime
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ddcnn.experiments.record import environment

RESULTS = Path(__file__).parent / "results"


def in_turns(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return seconds per round of each candidate; they run in turns, and one turn before is a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def describe_machine(command: str, device: torch.device) -> str:
    """Return command, versions and hardware as Markdown."""
    facts = environment(device, command)
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    hardware = facts["device"] if device.type == "cuda" else facts["processor"]
    return f"`{command}`, {date()}; {hardware}, {facts['threads']} threads of {facts['cores']} cores; {versions}."


def hardware_name(device: torch.device) -> str:
    """Return the hardware as a part of a file name."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()}cores-{platform.machine()}"
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def date() -> str:
    """Return today, YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def write(path: Path | None, theme: str, lines: Sequence[str], device: torch.device) -> None:
    """Write a table to the results, and say where."""
    path = path or RESULTS / f"{theme}-{hardware_name(device)}-{date()}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path)

"""What the benchmarks share: candidates in turns, the machine in words, tables to files."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ddcnn.experiments.record import environment
from ddcnn.training import StageTimer

RESULTS = Path(__file__).parent / "results"
_STATM = Path("/proc/self/statm")


def in_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, *, seconds: float = math.inf, least: int = 3
) -> dict[str, np.ndarray]:
    """Return seconds per round of each candidate; they run in turns, and one turn before is a warm-up.

    After ``seconds`` no further round begins, but ``least`` are run in any case.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    begin = math.inf
    for turn in range(rounds + 1):
        if turn > least and time.perf_counter() - begin > seconds:
            break
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
        begin = time.perf_counter() if turn == 0 else begin
    return {name: np.array(seconds) for name, seconds in times.items()}


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes that are needed beyond those in use before, at the peak: of the GPU, or resident (Linux)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
    else:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is None or not _STATM.exists():
            return None
        trim(0)  # memory that glibc keeps for later would count as in use
        before = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with StageTimer("memory", device) as stage:
        run()
    return None if stage.peak_memory_bytes is None else max(0, stage.peak_memory_bytes - before)


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the floating-point operations per second of a large matrix product: the best of several.

    On a GPU float32 means TF32 where convolutions are allowed to use it, which is PyTorch's default.
    """
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    run = partial(_product, a, a.clone(), device)
    with _as_exact_as_convolutions(device):
        fastest = min(in_turns({"product": run}, 10, seconds=1)["product"])
    return 2 * size**3 / float(fastest)


def _product(a: torch.Tensor, b: torch.Tensor, device: torch.device) -> None:
    a @ b
    synchronize(device)


@contextlib.contextmanager
def _as_exact_as_convolutions(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision
    yield
    torch.backends.cuda.matmul.fp32_precision = before


def watched(command: Sequence[str]) -> tuple[float, int]:
    """Run a process to its end; return its seconds, and its largest resident memory in bytes (Linux).

    The kernel counts anew when a `ddcnn.training.StageTimer` begins; so it is looked at as well, 50 times a second.

    Raises
    ------
    subprocess.CalledProcessError
        Its exit code is not 0.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, statm = 0, Path(f"/proc/{process.pid}/statm")
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        with contextlib.suppress(OSError, IndexError):
            peak = max(peak, int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        time.sleep(0.02)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, max(peak, usage.ru_maxrss * 1024)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
    path = path or result_path(theme, device)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path)


def write_page(doc: str | None, tables: Callable[[list[Path]], list[str]]) -> tuple[list[Path], Path]:
    """Do what the command line of a script says that makes a page of folders; return them, and where the page is."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--title", required=True)
    parser.add_argument("--notes", type=Path, help="Markdown to put below the title")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    notes = [options.notes.read_text(encoding="utf-8").strip(), ""] if options.notes else []
    lines = [f"# {options.title}", "", *notes, *tables(options.folders)]
    options.out.write_text("\n".join(lines), encoding="utf-8")
    print(options.out)
    return options.folders, options.out


def result_path(theme: str, device: torch.device) -> Path:
    """Return where the table of a theme goes."""
    return RESULTS / f"{theme}-{hardware_name(device)}-{date()}.md"

"""Work through a long list of runs in the background, while nobody needs the machine.

    python benchmarks/campaign.py start HOME     # begin, or go on: a process of its own, at nice 19, one core left free
    python benchmarks/campaign.py pause HOME     # SIGSTOP, for as long as something is timed; then: continue
    python benchmarks/campaign.py stop HOME      # SIGTERM: the run that is under way keeps its checkpoints
    python benchmarks/campaign.py status HOME
    python benchmarks/campaign.py collect HOME   # finished cells as JSON lines, into benchmarks/results/campaign.jsonl

HOME is a folder outside the checkout: ``HOME/code`` is a frozen clone, ``HOME/venv`` an environment in which that clone
is installed, ``HOME/data`` holds the data sets, and ``HOME/runs`` is filled. The cells are those of ``campaign.txt``
beside this file: runs, or whole experiments. A cell that is done is never run again; one that was stopped goes on.
Other work takes the processor from it, so its times are no timings: they are left out of what is collected.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CELLS = Path(__file__).with_name("campaign.txt")
RESULTS = Path(__file__).with_name("results") / "campaign.jsonl"
TIMES = ("seconds", "critical_path_seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class Cell:
    """One run: its name, and the arguments of ``ddcnn``."""

    name: str
    arguments: tuple[str, ...]

    def command(self, home: Path) -> list[str]:
        """Return the command that begins the run, or goes on with it."""
        out = self.folder(home)
        if (out / "config.yaml").exists():
            return [self.arguments[0], "--resume", str(out)]
        return [*(part.format(data=home / "data") for part in self.arguments), "--out", str(out)]

    def folder(self, home: Path) -> Path:
        """Return where its results lie."""
        return home / "runs" / self.name

    def is_done(self, home: Path) -> bool:
        """Tell whether the run, or each run of the experiment, is complete."""
        return any((self.folder(home) / name).exists() for name in ("comparison.json", "summary.json"))

    def results(self, home: Path) -> Iterator[dict[str, Any]]:
        """Yield a line for a run that is complete, or one for each complete run of an experiment; without times."""
        folder = self.folder(home)
        if (folder / "comparison.json").exists():
            found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
            details = {name: found["details"][name] for name in ("versions", "choices", "samples")}
            yield {"seed": found["seed"], "strategies": [_without_times(row) for row in found["strategies"]], **details}
        elif (folder / "cells.jsonl").exists():
            for line in (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                row["arms"] = {label: _without_times(arm) for label, arm in row["arms"].items()}
                yield row


def cells(text: str) -> Iterator[Cell]:
    """Yield the cells of a list, round by round, seed by seed.

    >>> [cell.name for cell in cells("round x:\\na seeds=0-1 compare\\nb seeds=0-0 train\\n")]
    ['a-s0', 'b-s0', 'a-s1']
    """
    rounds: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("round "):
            rounds.append([])
        elif line.strip() and not line.startswith("#"):
            rounds[-1].append(line)
    for rows in rounds:
        for seed in range(1000):
            for row in rows:
                name, seeds, arguments = row.split(maxsplit=2)
                first, last = map(int, seeds.removeprefix("seeds=").split("-"))
                if first <= seed <= last:
                    yield Cell(f"{name}-s{seed}", (*shlex.split(arguments), "--seed", str(seed)))


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES and key != "trajectory"}


def work(home: Path) -> None:
    """Run what is not done, one cell after the other."""
    os.nice(19)
    child: subprocess.Popen[bytes] | None = None

    def end(number: int, _frame: object) -> None:
        if child is not None:
            child.send_signal(number)
            child.wait()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    threads = str(max(1, (os.cpu_count() or 1) - 1))
    for cell in cells(CELLS.read_text(encoding="utf-8")):
        if cell.is_done(home):
            continue
        log = home / f"{cell.name}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                [home / "venv" / "bin" / "ddcnn", *cell.command(home)],
                env=os.environ | {"OMP_NUM_THREADS": threads},
                cwd=home,
                stdout=output,
                stderr=output,
            )
            if child.wait():
                print(f"{cell.name} ended with {child.returncode}: see {log}", flush=True)


def running(home: Path) -> int | None:
    """Return the process group of the campaign, if it is there."""
    try:
        group = int((home / "pid").read_text())
        os.killpg(group, 0)
    except (OSError, ValueError):
        return None
    return group


def start(home: Path) -> None:
    """Begin in the background."""
    if running(home) is not None:
        sys.exit("it runs already")
    with (home / "campaign.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "work", home], stdout=log, stderr=log, start_new_session=True
        )
    (home / "pid").write_text(str(process.pid))


def send(home: Path, number: int) -> None:
    """Send a signal to all of its processes."""
    if (group := running(home)) is None:
        sys.exit("it does not run")
    os.killpg(group, signal.SIGCONT)
    os.killpg(group, number)


def status(home: Path) -> None:
    """Print a line per cell."""
    print("running" if running(home) else "not running", time.strftime("%Y-%m-%d %H:%M"))
    for cell in cells(CELLS.read_text(encoding="utf-8")):
        state = "done" if cell.is_done(home) else "to do"
        folder = cell.folder(home)
        for name in ("metrics.jsonl", "cells.jsonl"):
            if state == "to do" and (folder / name).exists():
                lines = (folder / name).read_text(encoding="utf-8").splitlines()
                state = f"{len(lines)} lines in {name}, the last: {lines[-1][:100]}"
        print(f"{cell.name:32} {state}")


def collect(home: Path, results: Path = RESULTS) -> None:
    """Write one JSON line per finished cell."""
    lines = []
    for cell in cells(CELLS.read_text(encoding="utf-8")):
        command = shlex.join(["ddcnn", *cell.arguments]).replace("'{data}'", "DATA")
        lines += [json.dumps({"campaign": cell.name, "command": command, **row}) for row in cell.results(home)]
    results.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} cells in {results}")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "pause", "continue", "stop", "status", "collect", "work"))
    parser.add_argument("home", type=Path)
    given = parser.parse_args()
    signals = {"pause": signal.SIGSTOP, "continue": signal.SIGCONT, "stop": signal.SIGTERM}
    if given.what in signals:
        send(given.home, signals[given.what])
    else:
        {"start": start, "status": status, "collect": collect, "work": work}[given.what](given.home)


if __name__ == "__main__":
    main()

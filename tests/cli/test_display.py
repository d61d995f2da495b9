"""Progress on a terminal, and elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from rich.table import Table

from ddcnn.cli import display
from ddcnn.cli.display import AnimatedProgress, Pace, PlainProgress, print_table, watching
from ddcnn.report import rich_table
from ddcnn.training import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "stream", "expected"),
    [(True, Terminal, Progress), (False, io.StringIO, PlainProgress), (False, Terminal, AnimatedProgress)],
)
def test_progress_suits_the_stream(monkeypatch: pytest.MonkeyPatch, quiet: bool, stream: type, expected: type) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    with watching(quiet=quiet) as progress:
        assert type(progress) is expected


def test_no_bars_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with watching(quiet=False) as progress:
        assert type(progress) is PlainProgress


def test_bars_fit_into_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_REFRESH", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=80, color_system=None)
    progress = AnimatedProgress(console)
    try:
        progress.note("a [note]")
        progress.begin("coherent", epochs=10, steps=4, members=1)
        for _ in range(3):
            progress.advance(64, lambda: (1.234, 0.825))
        shown = _last_line(progress)
        assert "coherent" in shown
        assert "1/10" in shown
        assert "loss 1.234  accuracy 82.5%" in shown
        assert "images/s" in shown
        assert "…" not in shown
        progress.epoch({"train_loss": [1.0], "validation_accuracy": [0.5]})
        assert "loss 1.000  validation 50.0%" in _last_line(progress)
        progress.end()
        assert progress._bars.finished  # although it stopped early
    finally:
        progress.close()
    assert "a [note]" in console.file.getvalue()


def _last_line(progress: AnimatedProgress) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(progress._bars.get_renderable())
    return console.file.getvalue().splitlines()[-1]


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    pace = Pace("local", epochs=2, steps=2, members=1)
    for _ in range(2):
        now[0] += 2.0
        pace.advance(10)
    now[0] += 1.0  # validation
    assert pace.rate == "5 images/s"
    assert pace.seconds_left == 5.0
    pace.end_epoch()
    assert pace.epoch == 2


@pytest.mark.parametrize(
    ("seconds", "done", "said"),
    [(3.0, 4, [1, 2, 3, 4]), (0.1, 30, [10, 20, 30]), (0.1, 24, [10, 20, 24]), (0.1, 3, [3])],
)
def test_a_log_has_a_line_per_epoch_or_per_ten_short_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, done: int, said: list[int]
) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    progress = PlainProgress()
    progress.begin("local", epochs=30, steps=1, members=1)
    for _ in range(done):
        now[0] += seconds
        progress.epoch({})
    progress.end()  # after an early stop, the last epoch is told as well
    lines = capsys.readouterr().err.splitlines()
    assert [int(re.match(r"local: epoch (\d+)/30", line)[1]) for line in lines] == said


def test_a_terminal_without_colours_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with watching(quiet=False) as progress:
        assert type(progress) is PlainProgress


def test_wide_tables_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "value")
    table.add_row("a" * 120, "b" * 60)
    print_table(table)
    out = capsys.readouterr().out
    assert "a" * 120 in out
    assert "b" * 60 in out


def test_the_comparison_fits_into_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"test_accuracy": 0.5, "parameters": 1_288_000, "epochs": 150, "seconds": 12345.0}
    rows = [{"name": "global", **numbers, "critical_path_seconds": 12345.0, "peak_memory_bytes": 2**31}]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(rich_table({"strategies": rows}))
    assert "\x1b" not in terminal.getvalue()
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in terminal.getvalue()

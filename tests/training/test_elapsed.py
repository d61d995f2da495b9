"""Seconds that outlive a process."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from ddcnn.training import elapsed, elapsed_across_restarts


def test_the_next_process_knows_the_seconds_of_this_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "local.seconds"
    with elapsed_across_restarts(file) as earlier:
        assert earlier == 0
        time.sleep(0.3)
    with suppress(KeyboardInterrupt), elapsed_across_restarts(file) as earlier:
        assert 0.3 <= earlier < 5
        time.sleep(0.3)
        raise KeyboardInterrupt
    with elapsed_across_restarts(file) as earlier:
        assert 0.6 <= earlier < 10


def test_a_process_that_is_killed_has_counted_until_shortly_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elapsed, "_EVERY", 0.05)
    file = tmp_path / "local.seconds"
    with elapsed_across_restarts(file):
        deadline = time.monotonic() + 20
        while not (file.exists() and float(file.read_text()) >= 0.2):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "soon", "-1", "nan", "inf", "ü"])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: str) -> None:
    file = tmp_path / "local.seconds"
    file.write_text(content, encoding="utf-8")
    with elapsed_across_restarts(file) as earlier:
        assert earlier == 0
    assert float(file.read_text()) >= 0


def test_what_cannot_be_written_costs_nothing_but_the_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        with elapsed_across_restarts(tmp_path / "file" / "local.seconds") as earlier:
            assert earlier == 0

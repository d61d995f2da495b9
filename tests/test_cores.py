"""Cores: what the kernel's files say, with values counted by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddcnn import control_groups, cores
from ddcnn.cores import CoreTimes, busy_with_others, core_quota, threads_beside, usable_cores
from ddcnn.planning.checkup import available_memory

Groups = Callable[[str, dict[str, str]], None]

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of Linux")


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CoreTimes | None]:
    """Return a look at cores 0 and 2 of a machine whose clocks say what they are told."""
    monkeypatch.setattr(cores, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 2})

    def look(first: str, second: str, *, own: float, when: float) -> CoreTimes | None:
        (tmp_path / "stat").write_text(
            f"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 {first}\ncpu1 999 9 9 9 9 9 9 9 0 0\ncpu2 {second}\nintr 5 0\nctxt 3\n"
        )
        monkeypatch.setattr(cores.time, "process_time", lambda: own)
        monkeypatch.setattr(cores.time, "perf_counter", lambda: when)
        return CoreTimes.now()

    return look


@linux
def test_others_are_what_is_busy_without_this_process(stat: Callable) -> None:
    """Core 0: 70 % user, system, interrupts, steal; core 2: 20 % user, 30 % nice; of these 0.3 cores are our own."""
    before = stat("0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0", own=5.0, when=50.0)
    after = stat("40 0 10 20 10 5 5 10 0 0", "20 30 0 50 0 0 0 0 0 0", own=5.3, when=51.0)
    assert before is not None
    assert after is not None
    assert after.cores == 2
    assert after.others_since(before) == pytest.approx(0.9)


@linux
def test_where_clocks_stand_still_nothing_is_known(stat: Callable) -> None:
    before = stat("0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0", own=5.0, when=50.0)
    after = stat("0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0", own=5.3, when=51.0)
    assert after.others_since(before) is None


@pytest.mark.parametrize(
    ("looks", "found"), [([0.3], 0.3), ([1.9, 1.5], 1.5), ([1.9, 0.0], 0.0), ([None], None), ([0.5, 1.0], 0.5)]
)
def test_a_load_must_last(looks: list[float | None], found: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    left = list(looks)
    monkeypatch.setattr(cores, "_look", lambda _seconds: left.pop(0))
    assert busy_with_others() == found
    assert not left


@linux
def test_a_look_at_this_machine_is_possible() -> None:
    found = cores._look(0.02)
    assert found is None or 0 <= found <= len(os.sched_getaffinity(0))


def test_threads_beside_others() -> None:
    assert [threads_beside(others, 16) for others in (0.0, 0.4, 1.0, 5.2, 12.0, 16.0)] == [16, 16, 15, 11, 8, 8]
    assert [threads_beside(others, 1) for others in (0.0, 1.0)] == [1, 1]


@pytest.fixture
def write_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Return what puts this process into control groups, whose files say what they are told."""

    def write(groups: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(f"{groups}\n")
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)
        monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")
        monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "groups")

    return write


@linux
@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/a.slice/job", {"a.slice/cpu.max": "300000 100000\n", "a.slice/job/cpu.max": "max 100000\n"}, 3.0),
        ("0::/a.slice/job", {"a.slice/cpu.max": "300000 100000", "a.slice/job/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/../../host/path", {"cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,cpuacct:/docker/x", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpuset:/\n0::/", {}, None),
        ("0::/", {"cpu.max": "nonsense"}, None),
    ],
)
def test_quota_of_control_groups(
    groups: str, files: dict[str, str], quota: float | None, write_groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_groups(groups, files)
    assert core_quota() == quota
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2, 3})
    assert usable_cores() == (4 if quota is None else max(1, round(quota)))


@linux
@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        # a scheduler limits the group of a job, not the one around all
        ("0::/slurm/job_7", {"slurm/job_7/memory.max": "9000\n", "slurm/job_7/memory.current": "2000\n"}, 7000),
        (
            "0::/slurm/job_7",
            {
                "slurm/memory.max": "6000",
                "slurm/memory.current": "5500",
                "slurm/job_7/memory.max": "max",
                "slurm/job_7/memory.current": "2000",
            },
            500,
        ),
        ("5:memory:/x", {"memory/x/memory.limit_in_bytes": "800", "memory/x/memory.usage_in_bytes": "900"}, 0),
    ],
)
def test_memory_of_control_groups(groups: str, files: dict[str, str], free: int, write_groups: Groups) -> None:
    write_groups(groups, files)
    assert available_memory() == free

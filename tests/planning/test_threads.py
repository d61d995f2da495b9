"""How many threads: asked for, set by the environment, or fewer beside other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from ddcnn.planning import Threads, choose_threads, computing_with, keep_threads, threads

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return what makes it a machine of 4 cores, computing with 4 threads, some of them busy with others."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def make(others: float | None, *, usable: int = 4, cores: int = 4) -> None:
        monkeypatch.setattr(threads, "busy_with_others", lambda: others)
        monkeypatch.setattr(threads, "usable_cores", lambda: usable)
        monkeypatch.setattr(threads, "allowed_cores", lambda: cores)

    with computing_with(4):
        yield make


@pytest.mark.parametrize("others", [0.0, 0.3, None])
def test_a_quiet_machine_is_not_spoken_of(machine: Callable, others: float | None) -> None:
    machine(others)
    assert choose_threads(None, CPU) == Threads(4)


@pytest.mark.parametrize(("others", "count"), [(1.2, 3), (3.9, 2)])
def test_fewer_threads_beside_others(machine: Callable, others: float, count: int) -> None:
    machine(others)
    line = f"{count} instead of 4: other programs kept {others} of 4 cores busy; --threads sets another number"
    assert choose_threads(None, CPU) == Threads(count, line, decided=True)


def test_a_limit_of_the_container_counts(machine: Callable) -> None:
    limited = Threads(3, "3: this process may use no more of 8 cores", decided=True)
    machine(0.0, usable=3, cores=8)
    assert choose_threads(None, CPU) == limited
    machine(2.0, usable=3, cores=8)  # on six other cores there is room for three threads
    assert choose_threads(None, CPU) == limited
    machine(5.0, usable=3, cores=4)
    assert choose_threads(None, CPU).count == 2


def test_the_user_decides(machine: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(4.0)
    assert choose_threads(3, CPU) == Threads(3, "3: as asked")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(None, CPU) == Threads(4)


def test_where_threads_are_not_ours_to_decide(machine: Callable) -> None:
    machine(4.0)
    assert choose_threads(None, CPU, alone=False) == Threads(4)
    assert choose_threads(None, torch.device("cuda")) == Threads(4)


def test_a_run_goes_on_as_it_began(machine: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(0.0)
    assert keep_threads(None, 3, CPU) == Threads(3)
    assert keep_threads(None, None, CPU) == Threads(4)
    machine(4.0)
    assert keep_threads(None, 2, CPU) == Threads(2)
    line = "4, as the run began, though other programs kept 4.0 of 4 cores busy; --threads 2 is likely faster, equal "
    assert keep_threads(None, None, CPU) == Threads(4, f"{line}within rounding")
    assert keep_threads(1, 2, CPU) == Threads(1, "1: as asked")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert keep_threads(None, 2, CPU) == Threads(4)


def test_threads_are_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), computing_with(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before

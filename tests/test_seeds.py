"""Seeds: the same everywhere, different for different purposes."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ddcnn.seeds import derive_seed, own_random_numbers


def test_values_never_change() -> None:
    """A saved run repeats only as long as these do."""
    assert derive_seed(0, "local", 3) == 67997034125476420
    assert derive_seed(1, "order", 2) == 51316244332066497


def test_purposes_do_not_collide() -> None:
    purposes = [
        (),
        ("local",),
        ("local", 0),
        ("local", 1),
        ("local", "1"),
        ("local", 1, 1),
        ("local", 11),
        ("order", 1),
    ]
    seeds = [derive_seed(seed, *purpose) for seed in range(50) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert len({derive_seed(a, b) for a, b in itertools.product(range(30), repeat=2)}) == 900


def test_seeds_fit_every_generator() -> None:
    assert all(0 <= derive_seed(seed, "x") < 2**56 for seed in range(100))


def test_threads_do_not_draw_from_each_other() -> None:
    both = threading.Barrier(2, timeout=2)

    def draw(seed: int) -> list[float]:
        found = []
        with own_random_numbers(seed=seed):
            for _ in range(2):
                found.append(torch.rand(1).item())
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait()  # if the other one is let in, it has drawn as often now
        return found

    def alone(seed: int) -> list[float]:
        return torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()

    before = torch.get_rng_state()
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(draw, (1, 2))) == [alone(1), alone(2)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_was_forked_meanwhile_draws() -> None:
    with own_random_numbers(seed=0), ThreadPoolExecutor(1) as threads:
        code = threads.submit(_forked_draws).result(timeout=30)
    assert code == 0


def _forked_draws() -> int:
    """Fork in a thread that does not hold the lock, and draw there."""
    pid = os.fork()
    if pid == 0:  # a lock that nobody gives back would hold it for ever
        watch = threading.Timer(5, os._exit, [1])
        watch.daemon = True
        watch.start()
        with own_random_numbers(seed=0):
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

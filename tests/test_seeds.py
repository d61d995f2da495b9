"""Seeds: the same everywhere, different for different purposes."""

from __future__ import annotations

import itertools

from ddcnn.seeds import derive_seed


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
